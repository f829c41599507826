"""The protocol's numbers: its version, its limits, and the signal that wakes a worker."""

import signal
from typing import Final

PROTOCOL: Final = 1
"""The protocol's version, raised when an old peer could misread a new one."""

DEFAULT_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Largest frame body, in bytes, unless the handshake agrees on another figure."""

MAX_ID_CHARS: Final = 256
"""The longest id that a parent may give to a session, an execution, a checkpoint or a question."""

MIN_MAX_FRAME_BYTES: Final = 4096
"""The smallest limit that a handshake may agree on: an `error` must always fit."""

WAKEUP_SIGNAL: Final = signal.SIGURG
"""Sent after a frame that must be read although code holds the worker's thread.

Its default action is to be ignored, so it does no harm to a process that has no handler for it yet.
"""
