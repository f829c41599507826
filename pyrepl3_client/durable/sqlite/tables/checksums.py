"""CRC-32 of what is on record: a disk that returns other bytes than it was given is noticed, not believed."""

import zlib

from pyrepl3_client.errors import StoreError


def checksum(*parts: bytes) -> int:
    """Return the CRC-32 of bytes that are put together."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def require_intact(what: str, path: str, recorded: int | None, *parts: bytes) -> None:
    """Check that what was read is what was recorded.

    Args:
        what: it is, for the error.
        path: of the store.
        recorded: its checksum; None if an earlier version has recorded none.
        *parts: what was read.

    Raises:
        StoreError: it is not.
    """
    # A flipped bit may have made text of bytes.
    intact = all(type(part) is bytes for part in parts) and checksum(*parts) == recorded
    if recorded is not None and not intact:
        raise StoreError(
            f"{what} is damaged in the store at {path!r}: it is not what was recorded (check the disk, and "
            "restore a backup)"
        )
