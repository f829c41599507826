"""Pools: workers that are started in advance, and how many sessions may be open at a time.

pool                the public face: open, acquire, release, drain
idle_workers        keeps workers warm, and gives them to sessions
places              how many sessions there may be; who waits for one, in order
named_sessions      sessions by name: live, in the store, or new; idle ones are passivated
named_session       one of them: held by several, opened and ended once
adjustments         what a session's configuration may have otherwise than its warm worker
stats               the figures of a pool
"""
