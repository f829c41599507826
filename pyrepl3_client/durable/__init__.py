"""Sessions whose record is in a store. Only this folder imports Resonate; it is loaded with a store.

stores     a URL to the journal in it
resonate/  each execution is a durable function of Resonate's, whatever the store
sqlite/    an SQLite file: tables, and Resonate's server in them
remote/    a Resonate server or PostgreSQL: promises alone
lease/     who owns a session
"""
