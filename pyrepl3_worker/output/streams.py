"""`sys.stdout` and `sys.stderr` of the code: file objects in front of the hub."""

import io
from collections.abc import Buffer, Callable, Iterable
from typing import Any, Final

from pyrepl3_schemas.messages import StreamName
from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.output.buffer import StreamBuffer
from pyrepl3_worker.output.collector import SHORT_TEXT, OutputCollector

# As they are now, whatever the code makes of its builtins.
_type: Final = type
_str: Final = str
_len: Final = len


class _ByteStream(io.BufferedIOBase):
    """`sys.stdout.buffer`: bytes in, text out."""

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
        """Stay open: code that closes its stdout has still more to say."""


def _make_fast_write(buffer: StreamBuffer, slow_write: Callable[[object], int]) -> Callable[[object], int]:
    """Give a `write` for a `print` in a loop: the same flow writes on, a few characters, where it wrote last.

    Everything is at hand: this runs several times for each line that is printed.
    """
    path_of, pieces = current_path.get, buffer.pieces

    def write(text: object, /) -> int:
        """Write text; give its length."""
        path = path_of()
        # From the length on no other thread gets its turn, and no signal handler either: both only do
        # after calls.
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
    """`sys.stdout` and `sys.stderr` of the code: text goes to the hub as it is, bytes by way of the sink."""

    def __init__(self, output: OutputCollector, stream: StreamName, fd: int) -> None:
        """Stand for the file descriptor `fd`."""
        sink: Any = _ByteStream(output, stream, fd)
        super().__init__(
            sink,
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
        )
        self._output = output
        self._stream: StreamName = stream
        # `print` finds it here first, and saves making a bound method each time.
        self.write = _make_fast_write(output.buffers[stream], self.write)

    @property
    def mode(self) -> str:
        """As the interpreter's own streams say."""
        return "w"

    @property
    def name(self) -> str:
        """As the interpreter's own streams are called."""
        return f"<{self._stream}>"

    def write(self, text: object, /) -> int:
        """Write text; give its length.

        Raises:
            TypeError: it is no str.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if type(text) is not str:
            # A subclass may lie about its length and more.
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
