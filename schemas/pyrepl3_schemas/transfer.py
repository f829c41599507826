"""Bodies of requests and responses, of any size: cut into chunks, and put together again. Pure.

A body is a value as MessagePack, and parts: buffers to which the value refers by their numbers. A value of up
to 1 MiB stands in the message; a longer one becomes the first part. The parts follow as chunks, of which
eight are under way until the receiver has acknowledged the first of them. So neither side keeps much of
what the other is slow to take, and other messages pass between the chunks.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import Chunk, Request, Response, Value

CHUNK_BYTES: Final = 1024 * 1024
"""Bytes of the longest chunk, and of the longest value that stands in a message."""
MAX_CHUNKS_UNDER_WAY: Final = 8
_MESSAGE_BYTES: Final = 2048
"""More than a chunk takes beside its data, or a request beside its body and parts."""
_PART_BYTES: Final = 9
"""Most bytes that the size of a part takes in a message."""


type Part = tuple[memoryview, ...]
"""At least one byte, in contiguous buffers that follow each other. One that was received is one buffer."""


class Body(NamedTuple):
    """What a request or response carries."""

    value: Value = msgspec.UNSET
    parts: tuple[Part, ...] = ()


class CutBody(NamedTuple):
    """A body on its way: what stands in the message, and what follows it."""

    value: Value
    sizes: list[int]
    parts: tuple[Part, ...]


def chunk_bytes(max_frame_bytes: int) -> int:
    """Return how many bytes a chunk may have where frames may have `max_frame_bytes`."""
    return min(CHUNK_BYTES, max_frame_bytes - _MESSAGE_BYTES)


def part_size(part: Part) -> int:
    """Return how many bytes a part has."""
    return sum(buffer.nbytes for buffer in part)


def flatten(body: Body) -> bytes:
    """Return a body that has a value as one byte string, which is a copy."""
    assert isinstance(body.value, msgspec.Raw)
    parts = (part[0] if len(part) == 1 else b"".join(part) for part in body.parts)
    return msgspec.msgpack.encode([memoryview(body.value), *parts])


def unflatten(data: bytes) -> Body:
    """Return the body of a byte string that `flatten` has made; its parts are views of it.

    Raises:
        ValueError: it is something else.
    """
    try:
        value, *parts = msgspec.msgpack.decode(data, type=list[memoryview])
    except msgspec.MsgspecError as error:
        raise ValueError(f"no body: {error}") from None
    return Body(msgspec.Raw(value), tuple((part,) for part in parts))


def cut(body: Body, max_frame_bytes: int) -> CutBody:
    """Return what of a body stands in its message.

    Args:
        body: the body; its parts are not copied.
        max_frame_bytes: bytes that a frame may have.

    Raises:
        ValueError: it has so many parts that their sizes do not fit.
    """
    value, parts = body.value, body.parts
    room = chunk_bytes(max_frame_bytes)
    if isinstance(value, msgspec.Raw):
        whole = memoryview(value)
        if whole.nbytes + _PART_BYTES * len(parts) > room:
            value, parts = msgspec.UNSET, ((whole,), *parts)
    if _PART_BYTES * len(parts) > room:
        raise ValueError(f"it has {len(parts):,} large buffers, too many for max_frame_bytes")
    return CutBody(value, [part_size(part) for part in parts], parts)


class SendingParts:
    """The parts of one body on their way out."""

    def __init__(self, request_id: str, parts: Iterable[Part], size: int) -> None:
        """Begin at the first part.

        Args:
            request_id: what they belong to.
            parts: the parts.
            size: most bytes of a chunk.
        """
        self._request_id = request_id
        self._chunks = [chunk for part in parts for chunk in _chunks_of(part, size)]
        self._sent = 0
        self._acknowledged = 0
        self.given_up = False
        """Whether no more is sent, or wanted."""

    @property
    def done(self) -> bool:
        """Whether all has been sent that is to be sent."""
        return self._sent == len(self._chunks) or self.given_up

    @property
    def is_full(self) -> bool:
        """Whether so many chunks are under way that an acknowledgement has to come first."""
        return self._sent - self._acknowledged >= MAX_CHUNKS_UNDER_WAY

    def next_chunk(self) -> Chunk:
        """Return the next chunk; only where it is not `done` and not `is_full`."""
        pieces = self._chunks[self._sent]
        self._sent += 1
        data = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        return Chunk(self._request_id, self._sent - 1, self._sent == len(self._chunks), data)

    def acknowledge(self, chunk: Chunk) -> None:
        """Take a chunk without data, which acknowledges one that was sent.

        Raises:
            RemoteProtocolError: that one was not sent, or is acknowledged already.
        """
        if chunk.last:
            self.given_up = True
        elif not self._acknowledged <= chunk.seq < self._sent:
            raise RemoteProtocolError(
                f"it acknowledged chunk {chunk.seq} of {self._request_id!r}, where {self._sent} were sent"
            )
        else:
            self._acknowledged = chunk.seq + 1

    def give_up(self) -> Chunk:
        """Send no more; return the chunk that says so."""
        self.given_up = True
        return Chunk(self._request_id, self._sent, last=True)


class ReceivingParts:
    """The parts of one body on their way in."""

    def __init__(self, message: Request | Response) -> None:
        """Wait for what a message announces.

        Raises:
            RemoteProtocolError: a part of no bytes.
        """
        if not all(message.parts):
            raise RemoteProtocolError(f"{message.request_id!r} has a part of 0 bytes")
        self._message = message
        # They grow as they are filled: what is only announced takes nothing.
        self._buffers = [bytearray() for _ in message.parts]
        self._part: int = 0
        self._seq: int = 0
        self.given_up = False
        """Whether the sender has said that no more comes."""

    @property
    def done(self) -> bool:
        """Whether all has come."""
        return self._part == len(self._buffers)

    def add(self, chunk: Chunk) -> Chunk:
        """Take a chunk; return the one that acknowledges it.

        Raises:
            RemoteProtocolError: it is out of order, or holds more than was announced.
            MemoryError: there is not enough memory for it.
        """
        data = chunk.data
        if not data and chunk.last:
            self.given_up = True
            return chunk
        sizes = self._message.parts
        size, end = 0, len(data)
        if self._part < len(sizes):
            size = sizes[self._part]
            end += len(self._buffers[self._part])
        ends_all = self._part == len(sizes) - 1 and end == size
        if chunk.seq != self._seq or not data or end > size or chunk.last != ends_all:
            raise RemoteProtocolError(
                f"chunk {chunk.seq} of {chunk.request_id!r}, of {len(data)} bytes, is not what was announced"
            )
        self._buffers[self._part] += data
        self._seq += 1
        if end == size:
            self._part += 1
        return Chunk(chunk.request_id, chunk.seq)

    def body(self) -> Body:
        """Return the body; only where it is `done`."""
        value, buffers = self._message.body, self._buffers
        if value is msgspec.UNSET:
            value, buffers = msgspec.Raw(buffers[0]), buffers[1:]
        return Body(value, tuple((memoryview(buffer),) for buffer in buffers))


def _chunks_of(part: Part, size: int) -> Iterator[list[memoryview]]:
    """Cut a part into chunks, each of which is one or more pieces of its buffers."""
    pieces: list[memoryview] = []
    room = size
    for buffer in part:
        at = 0
        while at < buffer.nbytes:
            piece = buffer[at : at + room]
            pieces.append(piece)
            at += piece.nbytes
            room -= piece.nbytes
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces
