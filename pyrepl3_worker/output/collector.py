"""What the code writes: streams, who wrote it, how much of it, and when it goes out.

Text from `sys.stdout` and `sys.stderr` is collected under one lock and sent as `output` frames. A
first line goes out at once, what follows within a few milliseconds is sent together. What is written
straight to fds 1 and 2 goes through the capture pipes; where a parent drains those, each frame says
whether something was waiting there, so that the parent can keep the order.
"""

import fcntl
import os
import select
import termios
import threading
from collections import deque
from sys import byteorder
from time import monotonic, sleep
from typing import Final

from pyrepl3_schemas.head_tail import HeadTail, tail_bytes
from pyrepl3_schemas.messages import Output, StreamName
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution, current_path
from pyrepl3_worker.interrupts.signals import WakeupSignal
from pyrepl3_worker.interrupts.timers import Timer, TimerThread
from pyrepl3_worker.output.buffer import StreamBuffer, utf8_decoder
from pyrepl3_worker.wire.stdio import Stdio
from pyrepl3_worker.wire.transport import FrameSender

_FLUSH_DELAY: Final = 0.004
"""Seconds for which text may wait for more."""
_FLUSH_CHARS: Final = 64 * 1024
SHORT_TEXT: Final = 256
"""Characters of a text that may take the short way."""
_FAST_PATH_PIECES: Final = 256
"""How many go the short way before one looks up. The interpreter keeps integers up to this ready made."""
_MAX_PIECES: Final = 8000
_CHUNK_CHARS: Final = 96 * 1024
"""Longest text of one frame. Buffers for it stay below malloc's mmap threshold of 128 KiB, past which
each costs page faults."""
_DRAIN_BYTES: Final = 64 * 1024
_CAPTURED_READ_TIMEOUT: Final = 0.25
_CAPTURED_READ_INTERVAL: Final = 0.0002
_ioctl: Final = fcntl.ioctl
_FIONREAD: Final = termios.FIONREAD
_NOTHING_CAPTURED: Final = (0, 0)
_STREAMS: Final[tuple[StreamName, StreamName]] = ("stdout", "stderr")
# Before the code's own `time.sleep` takes its place.
_sleep: Final = sleep


class OutputCollector:
    """Collects text, attributes it, bounds it and sends it, from any thread."""

    def __init__(
        self, writer: FrameSender, stdio: Stdio, timers: TimerThread, max_output_bytes: int | None
    ) -> None:
        """Send through `writer`; delays come from `clock`."""
        self._writer = writer
        self._stdio = stdio
        self._timers = timers
        self._limit = max_output_bytes
        self._head_limit = (
            None if max_output_bytes is None else max_output_bytes - tail_bytes(max_output_bytes)
        )
        self._chunk = min(_CHUNK_CHARS, max(1024, writer.max_frame_bytes // 8))
        self._lock = threading.RLock()
        self.buffers: Final = {stream: StreamBuffer(stream) for stream in _STREAMS}
        self.last_buffer = self.buffers["stdout"]
        """The one that was written to last; only this one holds text."""
        self._deferred: deque[tuple[WorkerExecution | None, StreamName, str]] = deque()
        """Text that was written where nobody could wait for the lock."""
        self._collected_chars = 0
        self._timer: Timer | None = None
        self._last_flush = 0.0
        self._first_line_at_once = False
        self.total_bytes = 0
        self.running: WorkerExecution | None = None
        """What text without a flow of its own is attributed to."""
        self.forked = False
        self.wakeup: WakeupSignal | None = None
        """Answered at the end of a `write`, a place where code that prints all the time can be stopped."""
        self._capture_decoders = (utf8_decoder(), utf8_decoder())
        self._byte_decoders = (utf8_decoder(), utf8_decoder())
        self._bytes_written = False
        if stdio.drained is not None:
            threading.Thread(target=self._run_drain_thread, name="pyrepl3-capture", daemon=True).start()

    def write(self, stream: StreamName, text: str) -> None:
        """Take text that is being written now by the calling thread and task."""
        if self.forked:
            self._write_to_fd(stream, text.encode("utf-8", "backslashreplace"))
            return
        path = current_path.get()
        owner = self.running if path is None else path.execution
        if self._is_reentrant():
            self._deferred.append((owner, stream, text))
            return
        with self._lock:
            if self._deferred:
                self._collect_deferred()
            self._collect(path, owner, stream, text)
            if self._deferred:
                self._collect_deferred()

    def _is_reentrant(self) -> bool:
        """Whether this thread is in the middle of something that a write may not come between.

        A garbage collection may run a finalizer that prints anywhere in our own code: in the middle of
        the hub's, where a second write would take apart what the first has half done; or while this
        thread holds the lock of the writer or of the clock, for which the hub's owner may be waiting.
        """
        return (
            _is_held_by_this_thread(self._lock)
            or _is_held_by_this_thread(self._writer.lock)
            or _is_held_by_this_thread(self._timers.lock)
        )

    def _collect_deferred(self) -> None:
        """Take what could not be taken when it was written. What comes meanwhile waits for its alarm."""
        for _ in range(len(self._deferred)):
            owner, stream, text = self._deferred.popleft()
            self._collect(None, owner, stream, text)

    def _collect(
        self, path: CallPath | None, owner: WorkerExecution | None, stream: StreamName, text: str
    ) -> None:
        buffer = self.last_buffer
        if buffer.owner is not owner or buffer.stream != stream:
            self._send_pending()
            buffer = self.last_buffer = self.buffers[stream]
            buffer.owner = owner
        if not buffer.pieces:
            self._first_line_at_once = monotonic() - self._last_flush > _FLUSH_DELAY
            if self._timer is None:
                self._timer = self._timers.call_later(_FLUSH_DELAY, self._timed_flush)
            self._collected_chars = 0
        buffer.pieces.append(text)
        self._collected_chars += len(text)
        if (
            self._collected_chars >= _FLUSH_CHARS
            or len(buffer.pieces) >= _MAX_PIECES
            or (self._first_line_at_once and text.endswith("\n"))
        ):
            self._send_and_restart_delay()
        elif not self._first_line_at_once and path is not None:
            buffer.fast_path_writer = path
            buffer.fast_path_left = _FAST_PATH_PIECES

    def write_bytes(self, stream: StreamName, data: bytes) -> None:
        """Take bytes that are being written now; what is no UTF-8 is replaced."""
        if self.forked:
            self._write_to_fd(stream, data)
            return
        if self._is_reentrant():
            self.write(stream, data.decode("utf-8", "replace"))
            return
        with self._lock:
            self._bytes_written = True
            text = self._byte_decoders[stream == "stderr"].decode(data)
            if text:
                path = current_path.get()
                self._collect(path, self.running if path is None else path.execution, stream, text)
            if self._deferred:
                self._collect_deferred()

    def _end_partial_characters(self) -> None:
        """Let go of characters that were begun and not ended."""
        self._bytes_written = False
        for stream, decoder in zip(_STREAMS, self._byte_decoders, strict=True):
            text = decoder.decode(b"", final=True)
            decoder.reset()
            if text:
                self.write(stream, text)

    def write_fd(self, fd: int, data: bytes) -> bool:
        """Take what the code writes to fd 1 or 2, in its place among what it prints.

        False when it has to go to the fd itself: that has been redirected, or the bytes are so many
        that the pipe is the better way.
        """
        if len(data) > _DRAIN_BYTES // 2 or self.forked:
            return False
        try:
            now, ours = os.fstat(fd), os.fstat(self._stdio.captured[fd - 1])
        except OSError:
            return False
        if (now.st_ino, now.st_dev) != (ours.st_ino, ours.st_dev):
            return False
        self.write_bytes(_STREAMS[fd - 1], data)
        # Like any write(2), it must outlive the process.
        self.flush()
        return True

    def attach_wakeup_signal(self, wakeup: WakeupSignal) -> None:
        """Answer `doorbell` from now on; when it waits, no text takes the short way past it."""
        self.wakeup = wakeup

        def leave_fast_path() -> None:
            self.last_buffer.fast_path_left = 0

        wakeup.on_busy = leave_fast_path

    def flush(self) -> None:
        """Send what has been collected, or see it sent: another thread may be about to."""
        if self._is_reentrant():
            return
        with self._lock:
            if self._deferred:
                self._collect_deferred()
            if self.last_buffer.pieces:
                self._send_and_restart_delay()
            if self._deferred:
                self._collect_deferred()

    def _send_and_restart_delay(self) -> None:
        self._send_pending()
        self._last_flush = monotonic()
        self._first_line_at_once = False

    def flush_deferred(self) -> None:
        """Take care of what could not be taken when it was written."""
        if self._deferred:
            self.flush()

    def _timed_flush(self) -> None:
        # Whoever writes from here on sets another.
        self._timer = None
        try:
            self.flush()
        except OSError:
            # The parent is gone. The loop sees the end of its stream and ends the process.
            self.last_buffer.pieces.clear()

    def _send_pending(self) -> None:
        buffer = self.last_buffer
        buffer.fast_path_left = 0
        # In place, and only what was copied: another thread may be adding a short piece just now.
        pieces = buffer.pieces.copy()
        del buffer.pieces[: len(pieces)]
        self._collected_chars = 0
        if not pieces:
            return
        text = pieces[0] if len(pieces) == 1 else "".join(pieces)
        if self._stdio.drained is None:
            self._count_bound_and_send(buffer.owner, buffer.stream, text, self._unread_captured_bytes())
        else:
            self._drain_capture_pipes()
            self._count_bound_and_send(buffer.owner, buffer.stream, text)

    def _unread_captured_bytes(self) -> tuple[int, int]:
        """How much written straight to fds 1 and 2 has not been read by the parent yet."""
        # Into buffers of ours: handing in bytes and taking some back takes three times as long.
        stdout, stderr = bytearray(4), bytearray(4)
        _ioctl(self._stdio.captured[0], _FIONREAD, stdout)
        _ioctl(self._stdio.captured[1], _FIONREAD, stderr)
        return int.from_bytes(stdout, byteorder), int.from_bytes(stderr, byteorder)

    def _count_bound_and_send(
        self,
        owner: WorkerExecution | None,
        stream: StreamName,
        text: str,
        captured: tuple[int, int] = _NOTHING_CAPTURED,
    ) -> None:
        if not text:
            return
        size = len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))
        self.total_bytes += size
        if owner is not None:
            used = owner.output_bytes
            owner.output_bytes = used + size
            if self._head_limit is not None and used + size > self._head_limit:
                text = self._head_part(owner, stream, text, size, used)
        self._send(owner, stream, text, captured)

    def _head_part(self, owner: WorkerExecution, stream: StreamName, text: str, size: int, used: int) -> str:
        """Return what of a text may go out now; the rest is kept back until the execution's end, or cut."""
        if owner.head_tail is None:
            assert self._limit is not None
            owner.head_tail = HeadTail(self._limit, finished=owner.ended)
        return owner.head_tail.add(stream, text, size, used)

    def _send(
        self,
        owner: WorkerExecution | None,
        stream: StreamName,
        text: str,
        captured: tuple[int, int] = _NOTHING_CAPTURED,
    ) -> None:
        if not text:
            return
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()
        execution_id, late = _attribute_output(owner)
        out, err = captured
        for start in range(0, len(text), self._chunk):
            part = text if len(text) <= self._chunk else text[start : start + self._chunk]
            self._writer.send(
                Output(execution_id=execution_id, stream=stream, data=part, late=late,
                       captured_stdout=out, captured_stderr=err)
            )  # fmt: skip
            out = err = 0

    def finish_execution(self, execution: WorkerExecution) -> None:
        """Send everything that `execution` has written, the kept tail included. It ends after this."""
        if self._bytes_written:
            self._end_partial_characters()
        # Locked although nothing may be there: the alarm's thread takes the text before it sends it.
        with self._lock:
            if self._deferred:
                self._collect_deferred()
            if self.last_buffer.pieces:
                self._send_pending()
            if self._stdio.drained is not None:
                self._drain_capture_pipes(final=True)
            if self._deferred:
                self._collect_deferred()
                self._send_pending()
            if execution.head_tail is not None:
                for stream, text in execution.head_tail.finish():
                    self._send(execution, stream, text)

    def reset_in_forked_child(self) -> None:
        """In a forked child: what is printed goes to fds 1 and 2 at once, as from any child process."""
        self._lock = threading.RLock()
        self._deferred.clear()
        for buffer in self.buffers.values():
            buffer.fast_path_left = 0
            buffer.pieces.clear()
        self.forked = True

    def _write_to_fd(self, stream: StreamName, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1 if stream == "stdout" else 2, view) :]

    def start_execution(self, execution: WorkerExecution) -> None:
        """An execution starts: its first line goes out at once, whatever the one before it wrote last."""
        self._last_flush = 0.0
        self.running = execution

    def wait_until_captured_is_read(self) -> bool:
        """Wait, briefly, until the parent has read what is in the capture pipes; say whether it has.

        The bytes there bear no name, so what the next execution writes could not be told from them. There
        is nothing to wait on: a pipe does not say when it is empty.
        """
        deadline = monotonic() + _CAPTURED_READ_TIMEOUT
        while self._unread_captured_bytes() != _NOTHING_CAPTURED:
            if monotonic() > deadline:
                return False
            _sleep(_CAPTURED_READ_INTERVAL)
        return True

    # --- capture pipes, when this process has to drain them itself ---------------------------------

    def _run_drain_thread(self) -> None:
        drained = self._stdio.drained
        assert drained is not None
        poller = select.poll()
        for fd in drained:
            poller.register(fd, select.POLLIN)
        while True:
            poller.poll()
            with self._lock:
                try:
                    self._send_pending()
                    self._drain_capture_pipes()
                except OSError:
                    return

    def _drain_capture_pipes(self, *, final: bool = False) -> None:
        """Send what waits in the capture pipes."""
        assert self._stdio.drained is not None
        for fd, stream, decoder in zip(self._stdio.drained, _STREAMS, self._capture_decoders, strict=True):
            while True:
                try:
                    data = os.read(fd, _DRAIN_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    break
                self._count_bound_and_send(self.running, stream, decoder.decode(data))
            if final:
                self._count_bound_and_send(self.running, stream, decoder.decode(b"", final=True))
                decoder.reset()


def _attribute_output(owner: WorkerExecution | None) -> tuple[str | None, bool]:
    """Return the id of the execution that an output belongs to, and whether it is late output.

    Late output is what a task or thread of an execution writes when that has ended. It stays the output of
    its own execution, whichever runs now.
    """
    return (None, False) if owner is None else (owner.execution_id, owner.ended)


def _is_held_by_this_thread(lock: "threading.RLock") -> bool:
    """Whether the calling thread holds a reentrant lock."""
    return lock._is_owned()  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue, reportUnknownMemberType] - threading.Condition asks the same way; there is no other
