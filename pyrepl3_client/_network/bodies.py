"""The body of a plain request, carried to its server: exactly that, and nothing behind it.

Chunks are written anew, without extensions and trailers, so that a server reads the same ones as this does.
"""

import asyncio
import re
from typing import Final

from pyrepl3_client._network.requests import CHUNKED, MAX_HEAD_BYTES, BadRequestError
from pyrepl3_client._network.streams import PeerGoneError, Stream, TooLongError

_LINE_END: Final = b"\r\n"
_MAX_LINE_BYTES: Final = 1024
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~]*)?\r\n")
_BLOCK_BYTES: Final = 64 * 1024


async def carry_body(source: Stream, sink: Stream, length: int) -> None:
    """Send a request's body on.

    Args:
        source: where it comes from; it is read up to the body's last byte.
        sink: where it goes.
        length: its bytes, or CHUNKED.

    Raises:
        BadRequestError: it is no body in chunks.
        PeerGoneError: a connection broke, or ended before the body's end.
    """
    if length != CHUNKED:
        await _carry_exactly(source, sink, length)
        return
    while size := await _chunk_size(source):
        await sink.send(b"%x\r\n" % size)
        await _carry_exactly(source, sink, size)
        if await _line(source) != _LINE_END:
            raise BadRequestError("a chunk is longer than it says")
        await sink.send(_LINE_END)
    left = MAX_HEAD_BYTES
    while (trailer := await _line(source)) != _LINE_END:
        left -= len(trailer)
        if left < 0:
            raise BadRequestError(f"the trailers have more than {MAX_HEAD_BYTES} bytes")
    await sink.send(b"0\r\n\r\n")


async def _carry_exactly(source: Stream, sink: Stream, length: int) -> None:
    while length:
        block = await source.receive(min(length, _BLOCK_BYTES))
        if not block:
            raise PeerGoneError(source, "it ended before its body's end")
        length -= len(block)
        await sink.send(block)
        await asyncio.sleep(0)


async def _chunk_size(source: Stream) -> int:
    match = _SIZE.fullmatch(await _line(source))
    if match is None:
        raise BadRequestError("the body is not in chunks")
    return int(match[1], 16)


async def _line(source: Stream) -> bytes:
    try:
        return await source.receive_until(_after_line, _MAX_LINE_BYTES)
    except TooLongError:
        raise BadRequestError("a line of the body in chunks is too long") from None


def _after_line(data: bytes) -> int:
    at = data.find(b"\n")
    return at + 1 if at >= 0 else -1
