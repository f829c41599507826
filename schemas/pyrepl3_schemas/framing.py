"""Bytes to frame bodies and back. Pure: no fd, no loop, no clock.

A frame is a 4-byte big-endian unsigned length, then that many bytes. A zero length is refused: no
message encodes to nothing, so a zero is a sign of a stream out of step.
"""

import struct
from typing import Final

from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.version import DEFAULT_MAX_FRAME_BYTES

HEADER: Final = struct.Struct(">I")


def encode_frame(body: bytes, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> bytes:
    """Put the length before a body.

    Raises:
        LocalProtocolError: the body is empty or longer than `max_frame_bytes`.
    """
    size = len(body)
    if not 0 < size <= max_frame_bytes:
        raise LocalProtocolError(f"a frame of {size} bytes is outside 1..{max_frame_bytes}")
    return HEADER.pack(size) + body


class FrameDecoder:
    """Cuts a byte stream into frame bodies, whatever chunks it arrives in.

    After a `RemoteProtocolError` the decoder stays broken and says so on every further call: past a
    bad length there is no telling where the next frame begins.
    """

    __slots__ = ("_buffer", "_error", "_offset", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of a stream; `max_frame_bytes` bounds the memory a peer can make us hold."""
        self.max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._offset = 0
        self._error: RemoteProtocolError | None = None

    @property
    def offset(self) -> int:
        """Bytes of the stream that have been handed out as frames."""
        return self._offset

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame that are being held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream; give the bodies of all frames that they complete.

        Frames that were whole before a bad one are given first; the error comes with the next call
        (or at once, when there are none).

        Raises:
            RemoteProtocolError: a length is 0 or over the limit; names the frame's offset.
        """
        if self._error is not None:
            raise self._error
        buffer = self._buffer
        # The common case, whole frames and nothing held back, is cut from `data` without a copy.
        source: bytes | bytearray = data
        if buffer:
            buffer += data
            source = buffer
        bodies: list[bytes] = []
        available = len(source)
        start = 0
        while available - start >= 4:
            (size,) = HEADER.unpack_from(source, start)
            if not 0 < size <= self.max_frame_bytes:
                self._error = RemoteProtocolError(
                    f"frame length {size} is outside 1..{self.max_frame_bytes}", self._offset
                )
                buffer.clear()
                if bodies:
                    return bodies
                raise self._error
            end = start + 4 + size
            if end > available:
                break
            bodies.append(bytes(source[start + 4 : end]))
            self._offset += 4 + size
            start = end
        if source is buffer:
            del buffer[:start]
        elif start < available:
            buffer += data[start:] if start else data
        return bodies

    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            RemoteProtocolError: it ended inside a frame, or had gone wrong before.
        """
        if self._error is not None:
            raise self._error
        if self._buffer:
            raise RemoteProtocolError(
                f"the stream ended inside a frame, after {len(self._buffer)} of its bytes", self._offset
            )
