"""The collector of the code's output: which execution wrote it, how much of it is kept, when it is sent.

Text from `sys.stdout` and `sys.stderr` is collected under one lock and sent as `output` frames. A first
line is sent at once; what follows within a few milliseconds is sent together. What is written straight to
fds 1 and 2 goes through the capture pipes. If the client reads those, each frame says how many bytes were
waiting there, so that the client can keep the order.

Late output is what a task or thread writes after its execution has ended; `_attribute_output` marks it.
"""

import codecs
import fcntl
import os
import select
import termios
import threading
from collections import deque
from sys import byteorder
from time import monotonic, sleep
from typing import Final

from pyrepl3_schemas.head_tail import HeadTail, split_at, tail_bytes
from pyrepl3_schemas.messages import Output, OutputRest, StreamName
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution, current_path
from pyrepl3_worker.interrupts.signals import WakeupSignal
from pyrepl3_worker.interrupts.timers import Timer, TimerThread
from pyrepl3_worker.wire.stdio import Stdio
from pyrepl3_worker.wire.transport import FrameSender

_FLUSH_DELAY: Final = 0.004
"""Seconds for which text may wait for more text."""
_FLUSH_CHARS: Final = 64 * 1024
SHORT_TEXT: Final = 256
"""Texts with fewer characters may take the fast path."""
_FAST_PATH_PIECES: Final = 256
"""Pieces that may take the fast path in a row. The interpreter has integers up to this number ready made."""
_MAX_PIECES: Final = 8000
_CHUNK_CHARS: Final = 96 * 1024
"""Longest text of one frame. Its buffers stay below malloc's mmap threshold of 128 KiB; a larger one costs
page faults each time."""
_DRAIN_BYTES: Final = 64 * 1024
_CAPTURED_READ_TIMEOUT: Final = 0.25
_CAPTURED_READ_INTERVAL: Final = 0.0002
_ioctl: Final = fcntl.ioctl
_FIONREAD: Final = termios.FIONREAD
_NOTHING_CAPTURED: Final = (0, 0)
_STREAMS: Final[tuple[StreamName, StreamName]] = ("stdout", "stderr")
# Taken before the code can replace `time.sleep`.
_sleep: Final = sleep


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


class OutputCollector:
    """Collects text, attributes it to an execution, cuts it to its limit and sends it. For any thread."""

    def __init__(
        self,
        writer: FrameSender,
        stdio: Stdio,
        timers: TimerThread,
        max_output_bytes: int | None,
        max_rest_bytes: int = 0,
    ) -> None:
        """Send frames with `writer`.

        Args:
            writer: sends the `output` frames.
            stdio: has the capture pipes.
            timers: runs the delayed flush.
            max_output_bytes: bytes of UTF-8 that are sent of one execution's output; None means all.
            max_rest_bytes: bytes past the head of that which are sent as `output_rest`, to a client that
                keeps them and cuts by itself.
        """
        self._writer = writer
        self._stdio = stdio
        self._timers = timers
        self._limit = max_output_bytes
        self._head_limit = (
            None if max_output_bytes is None else max_output_bytes - tail_bytes(max_output_bytes)
        )
        self._rest_end = (
            None if self._head_limit is None or not max_rest_bytes else self._head_limit + max_rest_bytes
        )
        """Where the rest ends that the client takes of one execution, in bytes from its beginning."""
        self._chunk = min(_CHUNK_CHARS, max(1024, writer.max_frame_bytes // 8))
        self._lock = threading.RLock()
        self.buffers: Final = {stream: StreamBuffer(stream) for stream in _STREAMS}
        self.last_buffer = self.buffers["stdout"]
        """The one that was written to last. Only this one can hold text."""
        self._deferred: deque[tuple[WorkerExecution | None, StreamName, str]] = deque()
        """Text that was written where the thread could not wait for the lock."""
        self._collected_chars = 0
        self._timer: Timer | None = None
        self._last_flush = 0.0
        self._first_line_at_once = False
        self.total_bytes = 0
        self.running: WorkerExecution | None = None
        """The execution of text that is written outside any call path, such as in a finalizer."""
        self.forked = False
        self.wakeup: WakeupSignal | None = None
        """Handled at the end of a `write`, where code that prints all the time can be cancelled."""
        self._capture_decoders = (utf8_decoder(), utf8_decoder())
        self._byte_decoders = (utf8_decoder(), utf8_decoder())
        self._bytes_written = False
        if stdio.drained is not None:
            threading.Thread(target=self._run_drain_thread, name="pyrepl3-capture", daemon=True).start()

    def write(self, stream: StreamName, text: str) -> None:
        """Collect text that the calling thread and task writes now.

        Args:
            stream: where it is written.
            text: what is written.
        """
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
        """Whether this thread holds a lock of ours, so that a write must not go on now.

        A garbage collection may run a finalizer that prints anywhere in our own code: in the middle of the
        collector's, where a second write would disturb a half-done first one; or while this thread holds the
        lock of the writer or of the timers, for which the thread that holds the collector's may be waiting.
        """
        return (
            _is_held_by_this_thread(self._lock)
            or _is_held_by_this_thread(self._writer.lock)
            or _is_held_by_this_thread(self._timers.lock)
        )

    def _collect_deferred(self) -> None:
        """Collect the deferred text that is there now. What is deferred meanwhile waits for its timer."""
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
        """Collect bytes that are written now.

        Args:
            stream: where they are written.
            data: what is written; what is not UTF-8 is replaced.
        """
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
        """Write replacement characters for characters whose bytes did not all come."""
        self._bytes_written = False
        for stream, decoder in zip(_STREAMS, self._byte_decoders, strict=True):
            text = decoder.decode(b"", final=True)
            decoder.reset()
            if text:
                self.write(stream, text)

    def write_fd(self, fd: int, data: bytes) -> bool:
        """Collect what the code writes to fd 1 or 2, in its order among what it prints.

        Args:
            fd: 1 or 2.
            data: what is written.

        Returns:
            False if the caller has to write to the fd itself: the fd has been redirected, or there are so
            many bytes that the pipe is the better way.
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
        # As after any write(2), the bytes must not be lost when the process dies.
        self.flush()
        return True

    def attach_wakeup_signal(self, wakeup: WakeupSignal) -> None:
        """Handle `wakeup` after writes from now on. While it waits, no text takes the fast path."""
        self.wakeup = wakeup

        def leave_fast_path() -> None:
            self.last_buffer.fast_path_left = 0

        wakeup.on_busy = leave_fast_path

    def flush(self) -> None:
        """Send what has been collected. If another thread is sending it, wait for that."""
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
        """Collect and send text that was deferred when it was written."""
        if self._deferred:
            self.flush()

    def _timed_flush(self) -> None:
        # A write from here on sets another timer.
        self._timer = None
        try:
            self.flush()
        except OSError:
            # The client is gone. The loop reads the end of its stream and ends the process.
            self.last_buffer.pieces.clear()

    def _send_pending(self) -> None:
        buffer = self.last_buffer
        buffer.fast_path_left = 0
        # In place, and only what was copied: another thread may be adding a piece by the fast path.
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
        """Return how many bytes of each capture pipe the client has not read yet."""
        # Into buffers of ours: passing bytes and getting bytes back takes three times as long.
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
                if self._rest_end is not None and not owner.ended:
                    self._send_past_head(owner, stream, text, used, captured)
                    return
                text = self._head_part(owner, stream, text, size, used)
        self._send(owner, stream, text, captured)

    def _head_part(self, owner: WorkerExecution, stream: StreamName, text: str, size: int, used: int) -> str:
        """Return the part of a text that is sent now. The rest waits for the execution's end, or is cut."""
        if owner.head_tail is None:
            assert self._limit is not None
            owner.head_tail = HeadTail(self._limit, finished=owner.ended)
        return owner.head_tail.add(stream, text, size, used)

    def _send_past_head(
        self, owner: WorkerExecution, stream: StreamName, text: str, used: int, captured: tuple[int, int]
    ) -> None:
        """Send a text that does not fit into the head: a part of it in there, what follows as the rest."""
        assert self._head_limit is not None
        assert self._rest_end is not None
        head, rest = split_at(text, self._head_limit - used)
        if head:
            self._send(owner, stream, head, captured)
            captured = _NOTHING_CAPTURED
        if owner.head_tail is None:
            begin = max(used, self._head_limit)
            sent, rest = split_at(rest, self._rest_end - begin)
            self._send_rest(owner, stream, sent, captured)
        if rest:
            size = len(rest) if rest.isascii() else len(rest.encode("utf-8", "backslashreplace"))
            # The head is full, so all of it is kept back.
            self._head_part(owner, stream, rest, size, self._head_limit)

    def _send_rest(
        self,
        owner: WorkerExecution,
        stream: StreamName,
        text: str,
        captured: tuple[int, int] = _NOTHING_CAPTURED,
        missing: int = 0,
    ) -> None:
        if not text and not missing:
            return
        out, err = captured
        for start in range(0, max(len(text), 1), self._chunk):
            part = text if len(text) <= self._chunk else text[start : start + self._chunk]
            self._writer.send(
                OutputRest(stream=stream, data=part, execution_id=owner.execution_id, missing=missing,
                           captured_stdout=out, captured_stderr=err)
            )  # fmt: skip
            out = err = missing = 0

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
        """Send all output of an execution that is about to end, the tail that was kept back included."""
        if self._bytes_written:
            self._end_partial_characters()
        # Locked even if there is no text: the timer thread takes text out before it has sent it.
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
            if execution.head_tail is None:
                return
            if self._rest_end is None:
                for stream, text in execution.head_tail.finish():
                    self._send(execution, stream, text)
                return
            tail = execution.head_tail.take_tail()
            missing = execution.head_tail.missing
            for stream, text in tail or [("stdout", "")]:
                self._send_rest(execution, stream, text, missing=missing)
                missing = 0

    def reset_in_forked_child(self) -> None:
        """In a forked child, drop what the parent process sends, and write to fds 1 and 2 from now on."""
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
        """Attribute output to an execution that starts. Its first line is sent at once, without a delay."""
        self._last_flush = 0.0
        self.running = execution

    def wait_until_captured_is_read(self) -> bool:
        """Wait until the client has read what is in the capture pipes; at most a quarter of a second.

        The bytes there carry no execution id, so they could not be told from what the next execution
        writes. There is no event to wait for: a pipe does not tell when it becomes empty.

        Returns:
            Whether the client has read everything.
        """
        deadline = monotonic() + _CAPTURED_READ_TIMEOUT
        while self._unread_captured_bytes() != _NOTHING_CAPTURED:
            if monotonic() > deadline:
                return False
            _sleep(_CAPTURED_READ_INTERVAL)
        return True

    # --- capture pipes, when this process has to read them itself ---------------------------------

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
        """Send what waits in the capture pipes; `final` also ends characters whose bytes did not all come."""
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

    Late output is what a task or thread of an execution writes after that has ended. It belongs to that
    execution, not to the one that runs now.
    """
    return (None, False) if owner is None else (owner.execution_id, owner.ended)


def _is_held_by_this_thread(lock: "threading.RLock") -> bool:
    """Whether the calling thread holds a reentrant lock."""
    return lock._is_owned()  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue, reportUnknownMemberType] - threading.Condition asks the same way; there is no other way
