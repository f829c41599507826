"""The pipes of what the code writes to fds 1 and 2 past Python: bytes in, text out."""

import codecs
import fcntl
import os
import select
import struct
import termios
from typing import Final

from pyrepl3_client._launch.worker import PIPE_BYTES
from pyrepl3_schemas.messages import StreamName

_MAX_BYTES: Final = 256 * 1024
_COUNT: Final = struct.Struct("i")
_NO_COUNT: Final = bytes(_COUNT.size)

type Chunk = tuple[StreamName, str, int]
"""Stream, text, and how many bytes it was."""


def bytes_waiting(fd: int) -> int:
    """Return how many bytes wait in a pipe, by either of its ends."""
    (count,) = _COUNT.unpack(fcntl.ioctl(fd, termios.FIONREAD, _NO_COUNT))
    return count


class _Pipe:
    """One stream: its fd, a decoder that keeps split characters whole, and a count of bytes read."""

    __slots__ = ("decoder", "fd", "partial", "read", "stream")

    def __init__(self, stream: StreamName, fd: int) -> None:
        self.stream: StreamName = stream
        self.fd = fd
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.partial = False
        self.read = 0

    def waiting(self) -> int:
        """Return how many bytes wait in the pipe."""
        return bytes_waiting(self.fd)


class CapturePipes:
    """The two capture pipes of a worker. Knows no loop; never blocks."""

    def __init__(self, stdout: int, stderr: int) -> None:
        """Read from these fds, which stay the caller's."""
        self._pipes = [_Pipe("stdout", stdout), _Pipe("stderr", stderr)]
        # One poll of both is cheaper than two reads in vain, and there is one at each execution's end.
        self._poller = select.poll()
        self._partial = False
        for pipe in self._pipes:
            self._poller.register(pipe.fd, select.POLLIN)

    @property
    def open_fds(self) -> list[int]:
        """The fds that have not reached their end."""
        return [pipe.fd for pipe in self._pipes]

    @property
    def partial(self) -> bool:
        """Whether a stream stopped inside a character."""
        return self._partial

    def marks(self) -> list[tuple[_Pipe, int]]:
        """Return, for each stream, where the bytes end that are there now."""
        return [(pipe, pipe.read + pipe.waiting()) for pipe in self._pipes]

    def read_to(self, marks: list[tuple[_Pipe, int]]) -> list[Chunk]:
        """Read up to marks taken before; at a mark that says nothing waits, look for the end."""
        chunks: list[Chunk] = []
        for pipe, end in marks:
            if pipe not in self._pipes:
                continue
            if pipe.read >= end:
                self._read(pipe, 1, chunks)
            while pipe.read < end and self._read(pipe, min(end - pipe.read, _MAX_BYTES), chunks):
                pass
        return chunks

    def read_first(self, stdout: int, stderr: int, before: dict[StreamName, int]) -> list[Chunk]:
        """Read what waited when a frame was sent: so many bytes of each stream, counted from `before`.

        `before` holds how far each stream had been read when the frames that are being handled came; it is
        filled by the first of them.
        """
        chunks: list[Chunk] = []
        for pipe in list(self._pipes):
            start = before.setdefault(pipe.stream, pipe.read)
            end = start + min(stdout if pipe.stream == "stdout" else stderr, PIPE_BYTES)
            while pipe.read < end and self._read(pipe, min(end - pipe.read, _MAX_BYTES), chunks):
                pass
        return chunks

    def drain(self) -> list[Chunk]:
        """Read everything that is there now.

        At most one pipeful of each: a process that writes on and on would hold the loop here.
        """
        chunks: list[Chunk] = []
        if self._poller.poll(0):
            for pipe in list(self._pipes):
                end = pipe.read + PIPE_BYTES
                while pipe.read < end and self._read(pipe, min(end - pipe.read, _MAX_BYTES), chunks):
                    pass
        return chunks

    def flush(self) -> list[Chunk]:
        """Return the rest of characters that were never finished, as replacement characters."""
        chunks: list[Chunk] = []
        self._partial = False
        for pipe in self._pipes:
            if pipe.partial:
                chunks.append((pipe.stream, pipe.decoder.decode(b"", final=True), 0))
                pipe.decoder.reset()
                pipe.partial = False
        return chunks

    def _read(self, pipe: _Pipe, size: int, chunks: list[Chunk]) -> bool:
        try:
            data = os.read(pipe.fd, size)
        except BlockingIOError:
            return False
        if not data:
            self._end(pipe, chunks)
            return False
        pipe.read += len(data)
        text = pipe.decoder.decode(data)
        pipe.partial = pipe.decoder.getstate()[0] != b""
        self._partial = self._partial or pipe.partial
        if text:
            chunks.append((pipe.stream, text, len(data)))
        return True

    def _end(self, pipe: _Pipe, chunks: list[Chunk]) -> None:
        self._poller.unregister(pipe.fd)
        self._pipes.remove(pipe)
        if pipe.partial:
            chunks.append((pipe.stream, pipe.decoder.decode(b"", final=True), 0))
