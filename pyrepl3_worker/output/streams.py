"""The code's `sys.stdout` and `sys.stderr`: file objects that hand text to the collector."""

import io
from collections.abc import Buffer, Callable, Iterable
from typing import Any, Final

from pyrepl3_schemas.messages import StreamName
from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.output.collector import SHORT_TEXT, OutputCollector, StreamBuffer

# Kept as they are now: the code may replace builtins.
_type: Final = type
_str: Final = str
_len: Final = len


class _ByteStream(io.BufferedIOBase):
    """`sys.stdout.buffer`: hands bytes to the collector, which decodes them."""

    def __init__(self, output: OutputCollector, stream: StreamName, fd: int) -> None:
        super().__init__()
        self._output = output
        self._stream: StreamName = stream
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def write(self, data: Buffer, /) -> int:
        data = bytes(data)
        self._output.write_bytes(self._stream, data)
        return len(data)

    def close(self) -> None:
        """Stay open: code that closes its stdout may still print."""


def _make_fast_write(buffer: StreamBuffer, slow_write: Callable[[object], int]) -> Callable[[object], int]:
    """Return a `write` with a fast path for `print` in a loop.

    The fast path is for a short text that the same call path writes to the stream that it wrote to last.
    It uses local names only, since it runs several times for each line that is printed.

    Args:
        buffer: where the text of this stream waits.
        slow_write: called for every other text.
    """
    path_of, pieces = current_path.get, buffer.pieces

    def write(text: object, /) -> int:
        """Write text; return its length in characters."""
        path = path_of()
        # After the call of `_len` neither another thread nor a signal handler can run in between: the
        # interpreter switches to them only after calls.
        if (
            _type(text) is _str
            and (length := _len(text)) < SHORT_TEXT
            and buffer.fast_path_writer is path
            and buffer.fast_path_left
        ):
            buffer.fast_path_left -= 1
            pieces.append(text)
            return length
        return slow_write(text)

    return write


class OutputStream(io.TextIOWrapper):
    """The code's `sys.stdout` or `sys.stderr`: text goes to the collector as text, without being encoded."""

    def __init__(self, output: OutputCollector, stream: StreamName, fd: int) -> None:
        """Stand for a file descriptor.

        Args:
            output: takes what is written.
            stream: which of the two streams this is.
            fd: what `fileno` returns.
        """
        sink: Any = _ByteStream(output, stream, fd)
        super().__init__(
            sink,
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
        )
        self._output = output
        self._stream: StreamName = stream
        # An instance attribute: `print` finds it first, and makes no bound method each time.
        self.write = _make_fast_write(output.buffers[stream], self.write)

    @property
    def mode(self) -> str:
        """The mode, as the interpreter's own streams have it."""
        return "w"

    @property
    def name(self) -> str:
        """The name, as the interpreter's own streams have it."""
        return f"<{self._stream}>"

    def write(self, text: object, /) -> int:
        """Write text; return its length in characters.

        Args:
            text: what to write.

        Raises:
            TypeError: `text` is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if type(text) is not str:
            # A subclass may override its length and more.
            text = str.__str__(text)
        self._output.write(self._stream, text)
        wakeup = self._output.wakeup
        if wakeup is not None and wakeup.pending:
            wakeup.handle_now()
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what has been written."""
        self._output.flush()

    def close(self) -> None:
        """Send what has been written, and stay open."""
        self._output.flush()
