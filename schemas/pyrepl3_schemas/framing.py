"""Bytes to frame bodies and back. Pure: no fd, no loop, no clock.

A frame is a 4-byte big-endian unsigned length, then that many bytes. A zero length is refused: no
message encodes to nothing, so a zero is a sign of a stream out of step.
"""

import struct
from io import BytesIO
from typing import Final

from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES
from pyrepl3_schemas.errors import RemoteProtocolError

HEADER: Final = struct.Struct(">I")
_unpack_from = HEADER.unpack_from


class FrameDecoder:
    """Cuts a byte stream into frame bodies, whatever chunks it arrives in.

    After a `RemoteProtocolError` the decoder stays broken and says so on every further call: past a
    bad length there is no telling where the next frame begins. One reader at a time: `feed` must not
    be entered again (from a thread or a signal handler) before it has returned.
    """

    __slots__ = ("_body", "_error", "_header", "_missing", "_offset", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        """Start at byte 0 of a stream; `max_frame_bytes` bounds the memory a peer can make us hold."""
        self.max_frame_bytes = max_frame_bytes
        self._offset = 0
        self._error: RemoteProtocolError | None = None
        # What is held back is either the start of a header or the start of a body, never both. The
        # body is a BytesIO since that grows in place and gives its bytes away without a copy.
        self._header: bytes = b""
        self._body: BytesIO | None = None
        self._missing = 0

    @property
    def offset(self) -> int:
        """Bytes of the stream that have been handed out as frames."""
        return self._offset

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame that are being held, its length included."""
        return len(self._header) if self._body is None else HEADER.size + self._body.tell()

    @property
    def error(self) -> RemoteProtocolError | None:
        """What the stream is broken by, known before the next call raises it; else None."""
        return self._error

    def fail(self, reason: str, offset: int | None = None) -> RemoteProtocolError:
        """Break the decoder for good, let go of what it holds, and give the error to raise.

        Args:
            reason: what is wrong with the stream.
            offset: the frame at fault; the next one when None.
        """
        self._error = RemoteProtocolError(reason, self._offset if offset is None else offset)
        self._header = b""
        self._body = None
        self._missing = 0
        return self._error

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream; give the bodies of all frames that they complete.

        Frames that were whole before a bad one are given first; the error is in `error` then, and
        comes with the next call (at once, when there are no such frames).

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
            # Part of the stream is lost, so it can't be taken up again.
            raise self.fail("no memory to hold a frame") from None
        self._offset = offset
        return bodies

    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            RemoteProtocolError: it ended inside a frame, or had gone wrong before.
        """
        if self._error is not None:
            raise _copy_error(self._error)
        held = self.buffered
        if held:
            raise self.fail(f"the stream ended inside a frame, after {held} of its bytes")


def _copy_error(error: RemoteProtocolError) -> RemoteProtocolError:
    """Copy an error: one object raised again and again would gather tracebacks without end."""
    return RemoteProtocolError(error.reason, error.offset)
