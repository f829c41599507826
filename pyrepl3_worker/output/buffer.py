"""Output that has been written and not been sent yet."""

import codecs

from pyrepl3_schemas.messages import StreamName
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution


class StreamBuffer:
    """Text that one execution wrote to one stream, without other output between, and that is not sent yet.

    Each stream has one buffer for the whole session, and the buffer's list of pieces is never replaced, so
    that the fast path can add a piece while another thread empties the list.
    """

    __slots__ = ("fast_path_left", "fast_path_writer", "owner", "pieces", "stream")

    def __init__(self, stream: StreamName) -> None:
        """Start empty."""
        self.owner: WorkerExecution | None = None
        self.stream: StreamName = stream
        self.pieces: list[str] = []
        self.fast_path_writer: CallPath | None = None
        """The call path that wrote last, and that may use the fast path."""
        self.fast_path_left = 0
        """How many more short pieces the fast path may add before it has to take the slow one."""


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Return a decoder that replaces what is not UTF-8."""
    return codecs.getincrementaldecoder("utf-8")("replace")
