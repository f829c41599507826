"""Who owns a session, one process at a time.

owner    names a process so that another one can tell whether it is alive
"""
