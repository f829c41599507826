"""The last lines that a process wrote to its stderr, read from the pipe without blocking."""

import os
from typing import Final

from pyrepl3_client._launch.worker import PIPE_BYTES

_READ_BYTES: Final = 64 * 1024
_KEPT_BYTES: Final = 16 * 1024
_KEPT_LINES: Final = 100
_REST_BYTES: Final = 2 * PIPE_BYTES
"""Most that is read after the end. The pipe holds no more, unless another process still writes to it."""


class StderrTail:
    """Reads one pipe, which it does not own, and keeps the end of what came."""

    def __init__(self, fd: int) -> None:
        """Read from a non-blocking fd."""
        self._fd = fd
        self._kept = bytearray()

    @property
    def text(self) -> str:
        """The last lines."""
        text = self._kept.decode("utf-8", "replace").rstrip()
        return "\n".join(text.splitlines()[-_KEPT_LINES:])

    def read(self) -> bool:
        """Read what has come; return whether more may come, that is False at the end of the stream."""
        return self._read() != 0

    def read_rest(self) -> None:
        """Read what is left in the pipe, after the process has ended."""
        rest = _REST_BYTES
        while rest > 0:
            size = self._read()
            if not size:
                return
            rest -= size

    def _read(self) -> int | None:
        """Return how many bytes have come: 0 at the end of the stream, None if there are none now."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return None
        self._kept += data
        del self._kept[:-_KEPT_BYTES]
        return len(data)
