"""Segments of memory that processes share by a key (SysV): the kernel keeps them until someone removes them.

At the level "limits" code can make them, and they count as no process's memory. So those that a worker has
made are removed when it has ended.
"""

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

_REMOVE: Final = 0
"""IPC_RMID of shmctl(2): a process that is attached keeps the segment until it lets go of it."""
_ID, _MAKER, _USER, _CHANGED = 1, 4, 9, 13
"""Columns of /proc/sysvipc/shm."""


def segments_since(since: float) -> dict[int, int]:
    """Return the segments that this user's processes have made since a time, with the pids of these.

    Args:
        since: in seconds since the epoch.
    """
    with suppress(OSError), open("/proc/sysvipc/shm", "rb") as file:
        file.readline()
        rows = [list(map(int, line.split())) for line in file]
        user = os.getuid()
        return {row[_ID]: row[_MAKER] for row in rows if row[_USER] == user and row[_CHANGED] >= int(since)}
    return {}


def remove_segments(segments: Iterable[int]) -> None:
    """Remove segments, as far as this user may."""
    libc = ctypes.CDLL(None)
    for segment in segments:
        libc.shmctl(segment, _REMOVE, None)
