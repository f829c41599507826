"""Frames around bodies that are no messages, which the codec does not write."""

from pyrepl3_schemas.framing import HEADER


def framed(body: bytes) -> bytes:
    """Put the length before a body."""
    return HEADER.pack(len(body)) + body
