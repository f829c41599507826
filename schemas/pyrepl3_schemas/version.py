"""The public import path of the protocol's numbers, which are defined in `constants`."""

from pyrepl3_schemas.constants import (
    DEFAULT_MAX_FRAME_BYTES,
    MAX_ID_CHARS,
    MIN_MAX_FRAME_BYTES,
    PROTOCOL,
    PROTOCOLS,
)

__all__ = ["DEFAULT_MAX_FRAME_BYTES", "MAX_ID_CHARS", "MIN_MAX_FRAME_BYTES", "PROTOCOL", "PROTOCOLS"]
