"""Framing: bytes to frame bodies and back. Pure: no fd, no loop, no clock.

A frame is a 4-byte big-endian unsigned length, then that many bytes. A zero length is refused: no message
encodes to nothing, so a zero shows that reader and stream are out of step.
"""

import struct
from io import BytesIO
from typing import Final

from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES
from pyrepl3_schemas.errors import RemoteProtocolError

HEADER: Final = struct.Struct(">I")
_unpack_from = HEADER.unpack_from


class FrameDecoder:
    """Cuts a stream of bytes into frame bodies, in whatever chunks it arrives.

    After a `RemoteProtocolError` the decoder stays broken and raises it on each further call: after a bad
    length it is not known where the next frame begins. Only one reader: `feed` must not be called again,
    from a thread or a signal handler, before it has returned.
    """

    __slots__ = ("_body", "_error", "_header", "_missing", "_offset", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of a stream; `max_frame_bytes` limits the memory that a peer can make us use."""
        self.max_frame_bytes = max_frame_bytes
        self._offset = 0
        self._error: RemoteProtocolError | None = None
        # What is kept back is either the start of a header or the start of a body, never both. The body
        # is a BytesIO, since that grows in place and hands out its bytes without a copy.
        self._header: bytes = b""
        self._body: BytesIO | None = None
        self._missing = 0

    @property
    def offset(self) -> int:
        """Bytes of the stream that have been returned as frames."""
        return self._offset

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame that are kept, its length included."""
        return len(self._header) if self._body is None else HEADER.size + self._body.tell()

    @property
    def error(self) -> RemoteProtocolError | None:
        """The error that the next call will raise; None if the stream is not broken."""
        return self._error

    def fail(self, reason: str, offset: int | None = None) -> RemoteProtocolError:
        """Break the decoder, drop what it has kept, and return the error to raise.

        Args:
            reason: what is wrong with the stream.
            offset: where the bad frame is, in bytes; None means the next frame.
        """
        self._error = RemoteProtocolError(reason, self._offset if offset is None else offset)
        self._header = b""
        self._body = None
        self._missing = 0
        return self._error

    def feed(self, data: bytes) -> list[bytes]:
        """Add the next bytes of the stream; return the bodies of all frames that they complete.

        Complete frames before a bad one are returned first. The error is then in `error`, and the next call
        raises it; if there are no such frames, this call does.

        Args:
            data: the bytes.

        Raises:
            RemoteProtocolError: a length is 0 or over the limit; names the frame's offset.
        """
        if self._error is not None:
            raise _copy_error(self._error)
        bodies: list[bytes] = []
        start = 0
        offset = self._offset
        try:
            if self._body is not None:
                start = self._missing
                if len(data) < start:
                    self._missing -= self._body.write(data)
                    return bodies
                self._body.write(data[:start])
                body = self._body.getvalue()
                self._body = None
                bodies.append(body)
                offset += 4 + len(body)
            elif self._header:
                data = self._header + data
                self._header = b""
            last = len(data) - 4
            while start <= last:
                (size,) = _unpack_from(data, start)
                if not 0 < size <= self.max_frame_bytes:
                    error = self.fail(f"frame length {size} is outside 1..{self.max_frame_bytes}", offset)
                    if not bodies:
                        raise error
                    break
                start += 4
                end = start + size
                body = data[start:end]
                if len(body) < size:
                    self._body = BytesIO()
                    self._missing = size - self._body.write(body)
                    break
                bodies.append(body)
                offset += 4 + size
                start = end
            else:
                self._header = data[start:]
        except MemoryError:
            # Part of the stream is lost, so reading cannot go on.
            raise self.fail("no memory to hold a frame") from None
        self._offset = offset
        return bodies

    def close(self) -> None:
        """Mark the end of the stream.

        Raises:
            RemoteProtocolError: the stream ended inside a frame, or was broken before.
        """
        if self._error is not None:
            raise _copy_error(self._error)
        held = self.buffered
        if held:
            raise self.fail(f"the stream ended inside a frame, after {held} of its bytes")


def _copy_error(error: RemoteProtocolError) -> RemoteProtocolError:
    """Return a copy of an error: an object that is raised again and again collects tracebacks without end."""
    return RemoteProtocolError(error.reason, error.offset)
