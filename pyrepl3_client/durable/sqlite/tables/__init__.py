"""The tables of one SQLite file.

database     opens it, runs transactions                schema       its tables and versions
executions, calls, checkpoints, leases, records         what a session has on record
texts        what executions wrote, beside their outcomes
retention    deletes what is old                        busy         waits for locked files
errors       SQLite's errors as `StoreError`
"""
