"""Pieces of output that wait to be sent."""

import codecs

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
