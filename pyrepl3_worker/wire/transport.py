"""FrameSender and FrameReader: the only writes and reads of frames."""

import select
import threading
from collections import deque
from os import read, write, writev  # by name: `os.write` is patched for the code, which may replace it too
from typing import Final

from pyrepl3_schemas.codec import WorkerDecoder, encode, encode_chunk
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.messages import Chunk, FromWorker, ToWorker
from pyrepl3_worker.wire.first_protocol import as_first_protocol

_READ_BYTES: Final = 64 * 1024
"""Below malloc's mmap threshold, so that a read of a few bytes costs no page fault."""
_MAX_HELD_BYTES: Final = 32 * 1024
_BULK_READ_BYTES: Final = 1024 * 1024


class FrameSender:
    """Writes frames whole and in order, from any thread.

    A blocked pipe blocks the writer: that is the backpressure. The lock is reentrant since a garbage
    collection inside it may run a finalizer that prints; such a frame waits for the one that is half
    written.
    """

    def __init__(self, fd: int, max_frame_bytes: int, protocol: int = PROTOCOL) -> None:
        """Write to `fd`, which stays the caller's; a client of `protocol` reads it."""
        self._fd = fd
        self._client_is_older = protocol < PROTOCOL
        self.max_frame_bytes = max_frame_bytes
        self.lock = threading.RLock()
        self._queue: deque[bytes] = deque()
        self._writing = False
        self._held: list[bytes] = []
        self._held_bytes = 0

    def send(self, message: FromWorker, *, hold: bool = False) -> None:
        """Write one message, or hold it back to be written with the next one (for many short ones in a row).

        Args:
            message: what to write.
            hold: whether to hold it back.

        Raises:
            LocalProtocolError: it does not encode or is too long; nothing was written.
            BrokenPipeError: the client is gone.
        """
        if self._client_is_older:
            known = as_first_protocol(message)
            if known is None:
                return
            message = known
        frame = encode(message, self.max_frame_bytes)
        with self.lock:
            if not hold and not self._held:
                self._write_in_order(frame)
                return
            self._held.append(frame)
            self._held_bytes += len(frame)
            if not hold or self._held_bytes > _MAX_HELD_BYTES:
                self._write_held()

    def send_chunk(self, chunk: Chunk) -> None:
        """Write a chunk with data, of which no copy is made. Not while a frame is being written.

        Args:
            chunk: of such a size that its frame is not too long.

        Raises:
            BrokenPipeError: the client is gone.
        """
        head = encode_chunk(chunk)
        with self.lock:
            self._write_held()
            if self._writing:  # by a finalizer's print, for example
                self._queue.append(head + chunk.data)
                return
            self._writing = True
            try:
                self._write_both(head, chunk.data)
                while self._queue:
                    self._write(self._queue.popleft())
            finally:
                self._writing = False

    def _write_both(self, head: bytes, data: memoryview) -> None:
        try:
            written = writev(self._fd, [head, data])
        except BlockingIOError:
            written = 0
        if written < len(head):
            self._write(head[written:])
            written = len(head)
        self._write(data[written - len(head) :])

    def flush(self) -> None:
        """Write what is held back."""
        if self._held:
            with self.lock:
                self._write_held()

    def _write_held(self) -> None:
        held, self._held = self._held, []
        self._held_bytes = 0
        if held:
            self._write_in_order(held[0] if len(held) == 1 else b"".join(held))

    def _write_in_order(self, frame: bytes) -> None:
        if self._writing:
            self._queue.append(frame)
            return
        self._writing = True
        try:
            self._write(frame)
            while self._queue:
                self._write(self._queue.popleft())
        finally:
            self._writing = False

    def _write(self, frame: bytes | memoryview) -> None:
        written = 0
        try:
            written = write(self._fd, frame)
            if written == len(frame):
                return
            view = memoryview(frame)
            while written < len(frame):
                written += write(self._fd, view[written:])
        except BlockingIOError:
            # The process that started this one made the pipe non-blocking; part of the frame may be out.
            self._write_polling(frame, written)

    def _write_polling(self, frame: bytes | memoryview, written: int) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        view = memoryview(frame)
        while written < len(frame):
            poller.poll()
            try:
                written += write(self._fd, view[written:])
            except BlockingIOError:
                continue


class FrameReader:
    """Reads what has arrived, without blocking. Used by the session alone."""

    def __init__(self, fd: int, max_frame_bytes: int) -> None:
        """Read from `fd` (non-blocking), which stays the caller's."""
        self.fd = fd
        self.decoder = WorkerDecoder(max_frame_bytes)
        self.poller: Final = select.poll()
        """For a thread that blocks until something can be read."""
        self.poller.register(fd, select.POLLIN)
        self._read_size = _READ_BYTES

    def read(self) -> list[ToWorker] | None:
        """Return the messages that are complete now; None at the end of the stream.

        Raises:
            RemoteProtocolError: the client sent something other than frames.
        """
        try:
            data = read(self.fd, self._read_size)
        except BlockingIOError:
            return []
        if not data:
            self.decoder.close()
            return None
        self._read_size = _BULK_READ_BYTES if len(data) == self._read_size else _READ_BYTES
        return self.decoder.feed(data)

    def is_readable(self) -> bool:
        """Return whether bytes have arrived that were not read yet."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        return bool(poller.poll(0))
