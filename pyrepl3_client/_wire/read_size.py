"""How much of a worker's frames is read at once: what is handled then has the loop for itself."""

from typing import Final

READ_BYTES: Final = 64 * 1024
"""Below malloc's mmap threshold, so that a read of a few bytes costs no page fault."""
_BULK_BYTES: Final = 256 * 1024
"""Measured: more is no faster, since the memory is not in the caches then."""
_FEW_FRAMES: Final = 64
"""A full read of more frames than this is many small ones: more of those at once would hold the loop long."""
_SMALL_BYTES: Final = 8 * 1024
_MANY_FRAMES: Final = 256
"""With as many, the next read is small: frames may be host calls, and other sessions have their turn between
two reads."""


def next_read_bytes(frames: int, *, full: bool) -> int:
    """Return how much is to be read next, by how many frames the last read had, and whether it was full."""
    if frames < _FEW_FRAMES:
        return _BULK_BYTES if full else READ_BYTES
    return READ_BYTES if frames < _MANY_FRAMES else _SMALL_BYTES
