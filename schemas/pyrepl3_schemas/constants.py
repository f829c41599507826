"""The protocol's numbers: its version, its limits, and the signal that wakes a worker."""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Final

PROTOCOL: Final = 2
"""The protocol's version. It is raised when an old peer could misread a new one."""

PROTOCOLS: Final = (1, 2)
"""The versions that a worker speaks: to a client of an older one it sends nothing that this does not know."""

DEFAULT_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Largest frame body, in bytes, unless `hello` sets another limit."""

MAX_ID_CHARS: Final = 256
"""Characters of the longest id that a client may choose for a session, execution, checkpoint or request."""

MIN_MAX_FRAME_BYTES: Final = 4096
"""Bytes; the smallest limit that `hello` may set: an `error` must always fit."""

WAKEUP_SIGNAL: Final = signal.SIGURG
"""The signal that the client sends after a frame that must be read while code holds the worker's thread.

Its default action is to be ignored, so it does no harm to a process that has no handler for it yet.
"""

WORK_DIRECTORY: Final = "/tmp"  # noqa: S108 - a file system that only this worker has
"""The writable directory of a strictly confined worker."""

OWN_SIGNAL_MARK: Final = "pyrepl3-worker: its own code sends it signal "
"""The beginning of a line that a worker writes to its stderr before its code sends it a signal that ends it.

The signal's number follows."""

MAX_FIRST_LINE: Final = 1_000_000
"""The largest number that the first line of a cell can have: those before it are compiled as empty lines."""
PROXY_ADDRESS: Final = ("127.0.0.1", 3128)
"""Where the parent's proxy is reached in a worker's own network: the same in all workers of a session, since
variables of the environment come back with it."""
LISTENER: Final = b"listener"
"""The message with which that socket comes (`--files`); the one with the directories is an absolute path."""
