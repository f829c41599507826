"""Pieces of output that wait to be sent."""

import codecs

from pyrepl3_schemas.messages import StreamName
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution


class StreamBuffer:
    """Text of one execution, written in one go to one stream and not sent yet.

    Each stream has one for good, and its list of pieces stays the same, so that a short piece finds its
    way whoever empties it meanwhile.
    """

    __slots__ = ("fast_path_left", "fast_path_writer", "owner", "pieces", "stream")

    def __init__(self, stream: StreamName) -> None:
        """Nothing written."""
        self.owner: WorkerExecution | None = None
        self.stream: StreamName = stream
        self.pieces: list[str] = []
        self.fast_path_writer: CallPath | None = None
        """Who wrote last, and may take the short way."""
        self.fast_path_left = 0
        """How many more short pieces it may add without asking anybody."""


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Give a decoder that replaces what is no UTF-8."""
    return codecs.getincrementaldecoder("utf-8")("replace")
