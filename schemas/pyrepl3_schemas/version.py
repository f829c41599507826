"""The protocol's version: one integer, raised when an old peer could misread a new one."""

from typing import Final

PROTOCOL: Final = 1

DEFAULT_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Largest frame body, in bytes, unless the handshake agrees on another figure."""

MIN_MAX_FRAME_BYTES: Final = 4096
"""The smallest limit that a handshake may agree on: an `error` must always fit."""
