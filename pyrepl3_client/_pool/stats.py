"""The figures of a pool."""

import msgspec


class KeptSession(msgspec.Struct, frozen=True):
    """A session that is idle and cannot be passivated, and why."""

    name: str
    reason: str


class PoolStats(msgspec.Struct, frozen=True):
    """What a pool has, and what it has done since it was entered."""

    size: int
    """How many workers it keeps waiting."""
    max_sessions: int
    """How many sessions may be open at a time."""
    idle_workers: int
    """Warm workers that wait for a session."""
    sessions: int
    """Sessions that are open, or being opened or closed."""
    named: int
    """Those of them that are sessions by name."""
    held: int
    """Those by name that are in use now."""
    waiting: int
    """Requests for a session that wait for room."""
    opened: int
    """Sessions that were opened so far."""
    returned: int
    """Sessions by name that came back from their store so far."""
    passivated: int
    """How often an idle session was put into its store, and its worker freed."""
    timeouts: int
    """Requests that were given up after `acquire_timeout`."""
    longest_wait: float
    """Seconds that a request which got its session has waited for room, at most."""
    kept: tuple[KeptSession, ...] = ()
    """Idle sessions by name that stay live, since something of them would be lost in the store."""
