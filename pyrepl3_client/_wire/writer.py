"""Writes frames to a worker without ever blocking: at once when the pipe takes them, later when not."""

import asyncio
import os
from collections.abc import Callable
from contextvars import Context
from typing import Final

from pyrepl3_client._launch.worker import WorkerPipes

_CORK_BYTES: Final = 32 * 1024


class FrameWriter:
    """The way to one worker, on the loop. A worker that is gone gets nothing."""

    def __init__(self, ends: WorkerPipes, context: Context) -> None:
        """Write to `ends.writer`; be called back in a copy of `context`."""
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._pipes = ends
        self._frames = bytearray()
        self._blocked = False
        self._flush_due = False
        self._closing = False
        self._unread_answer_bytes = 0
        self.on_write: Callable[[], None] | None = None
        """Hears of every frame: the worker has something to do."""

    def write_answer(self, frame: bytes) -> int:
        """Send, now, what the worker has asked for; give how many bytes of such it has not taken."""
        self.write_now(frame)
        self._unread_answer_bytes = self._unread_answer_bytes + len(frame) if self._frames else 0
        return self._unread_answer_bytes

    def write_now(self, frame: bytes) -> None:
        """Send a frame now, after those that were batched."""
        if self.on_write is not None:
            self.on_write()
        if self._frames:
            self._frames += frame
            if not self._blocked:
                self._flush()
        else:
            self._write(frame)

    def write_batched(self, frame: bytes) -> None:
        """Send a frame together with others of this turn of the loop, in one write."""
        if self.on_write is not None:
            self.on_write()
        frames = self._frames
        frames += frame
        if self._blocked:
            return
        if len(frames) >= _CORK_BYTES:
            self._flush()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush_batch)

    def close(self) -> None:
        """Let the worker see the end of its input, after what has been sent."""
        self._closing = True
        if not self._frames:
            self.close_now()

    def close_now(self) -> None:
        """Close the pipe, whatever has not been sent."""
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._pipes.writer)
        self._frames.clear()
        self._pipes.close_writer()

    def _flush_batch(self) -> None:
        self._flush_due = False
        if self._frames and not self._blocked:
            self._flush()

    def _flush(self) -> None:
        frames, self._frames = self._frames, bytearray()
        self._write(frames)
        if self._closing and not self._frames:
            self.close_now()

    def _write(self, frames: bytes | bytearray) -> None:
        fd = self._pipes.writer
        if fd < 0:
            return
        try:
            written = os.write(fd, frames)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:
            return
        if written < len(frames):
            self._frames = bytearray(memoryview(frames)[written:])
            self._blocked = True
            self._add_writer(fd, self._on_writable)

    def _add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self._context.run(self._loop.add_writer, fd, callback)

    def _on_writable(self) -> None:
        try:
            written = os.write(self._pipes.writer, self._frames)
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._frames)
        del self._frames[:written]
        if not self._frames:
            self._blocked = False
            self._unread_answer_bytes = 0
            self._loop.remove_writer(self._pipes.writer)
            if self._closing:
                self.close_now()
