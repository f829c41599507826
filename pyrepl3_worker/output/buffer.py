"""Pieces of output: those that wait to be sent, and what of a long text is kept."""

import codecs
from collections.abc import Reversible

from pyrepl3_schemas.messages import StreamName
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution


class StreamBuffer:
    """Text of one execution, written in one go to one stream and not sent yet.

    Each stream has one for good, and its list of pieces stays the same, so that a short piece finds its
    way whoever empties it meanwhile.
    """

    __slots__ = ("owner", "path", "pieces", "room", "stream")

    def __init__(self, stream: StreamName) -> None:
        """Nothing written."""
        self.owner: WorkerExecution | None = None
        self.stream: StreamName = stream
        self.pieces: list[str] = []
        self.path: CallPath | None = None
        """Who wrote last, and may take the short way."""
        self.room = 0
        """How many more short pieces it may add without asking anybody."""


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Give a decoder that replaces what is no UTF-8."""
    return codecs.getincrementaldecoder("utf-8")("replace")


def head_of(text: str, size: int) -> str:
    """The longest beginning of at most `size` bytes."""
    if text.isascii():
        return text[:size]
    data = text.encode("utf-8", "surrogatepass")[:size]
    return data.decode("utf-8", "ignore")


def tail_of(text: str, size: int) -> str:
    """The longest end of at most `size` bytes."""
    if size <= 0:
        return ""
    if text.isascii():
        return text[-size:]
    data = text.encode("utf-8", "backslashreplace")[-size:]
    return data.decode("utf-8", "ignore")


def trimmed(
    pieces: Reversible[tuple[StreamName, str, int]], limit: int
) -> tuple[list[tuple[StreamName, str]], int]:
    """The last `limit` bytes of some pieces, as texts, and how many bytes they are."""
    kept: list[tuple[StreamName, str]] = []
    room = limit
    for stream, text, size in reversed(pieces):
        if room <= 0:
            break
        end = text if size <= room else tail_of(text, room)
        kept.append((stream, end))
        room -= min(size, room)
    kept.reverse()
    return kept, limit - room
