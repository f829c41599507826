"""The connection to one worker, without policy: it reads, writes, routes by type, and notes the exit.

    Connection    reads frames, and calls the route of each message's type; pauses and resumes reading
    FrameWriter   writes frames, at once or batched, without blocking the loop
    WorkerExit    how the worker ended

Order of delivery: frames come in the order in which they were sent. What the code wrote to fds 1 and 2
past Python comes through pipes of its own; it is delivered before the first frame that was sent after
it was written and says so (a captured `output`, a `display`, an `input`, a `result`, an `error`).
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from pyrepl3_client._launch.stderr_tail import StderrTail
from pyrepl3_client._launch.worker import PIPE_BYTES, Worker, WorkerPipes
from pyrepl3_client._log import fields, write
from pyrepl3_client._text import truncated
from pyrepl3_client._wire.captured_output import CapturePipes, Chunk
from pyrepl3_client._wire.read_size import READ_BYTES, next_read_bytes
from pyrepl3_client._wire.stall import StallDetector
from pyrepl3_client.errors import ProtocolError
from pyrepl3_schemas.codec import ClientDecoder, encode, encode_chunk
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import (
    Call,
    CallResponse,
    Display,
    Error,
    FromWorker,
    Hello,
    Input,
    InputResponse,
    Output,
    OutputRest,
    Result,
    StreamName,
    ToWorker,
)
from pyrepl3_schemas.messages import (
    Chunk as ChunkMessage,
)

type Route = Callable[[Any], None]
"""Takes messages of one type."""
type Interceptor = Callable[[FromWorker], bool | None]
"""Takes each message from the worker, on the session's event loop, before the session handles it.

Returns:
    True to keep the message from the session. See `pyrepl3_client.Session.interceptors`.
"""

_handlers_logger: Final = logging.getLogger("pyrepl3.handlers")
_logger: Final = logging.getLogger("pyrepl3.worker")
_MAX_FORCED_BYTES: Final = 512 * 1024 * 1024
"""Bytes that are read in a row while consumers have paused reading: they would have to keep them."""
_MAX_UNREAD_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of answers that wait for a worker to read them."""
_LAST_BYTES: Final = 2 * PIPE_BYTES
"""Most that is read of a dead worker's frames. Its pipe holds no more, unless another process writes."""
_EXIT_AFTER_EOF_SECONDS: Final = 2.0
_END_SECONDS: Final = 1.0
"""Seconds that a killed worker has for its end, before its outermost process is killed itself."""
_AFTER_CAPTURED: Final = frozenset({Input, Display})
_QUESTIONS: Final = frozenset({Call, Input})
"""Those of a worker that has ended are not asked: thousands may be in its pipe, and none waits for them."""


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended, as far as its connection knows."""

    exit_code: int | None
    signal: int | None
    stderr: str
    reason: str
    """Why the client ended it, or empty."""
    cause: BaseException | None
    """The error for which the client ended it."""
    peak_rss: int | None = None
    """Most bytes of memory that it ever had, None when it is not known."""


_CORK_BYTES: Final = 32 * 1024


class FrameWriter:
    """Writes frames to one worker, on the loop. To a worker that is gone it writes nothing."""

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
        self._written: asyncio.Future[None] | None = None
        self.on_write: Callable[[], None] | None = None
        """Called before each frame: the worker has something to do."""

    def write_answer(self, frame: bytes) -> int:
        """Send an answer now; return how many bytes of answers the worker has not read yet."""
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

    def write_both_now(self, head: bytes, data: memoryview) -> None:
        """Send a frame that is in two pieces now, after those that were batched."""
        if self.on_write is not None:
            self.on_write()
        fd = self._pipes.writer
        if self._frames or fd < 0:
            self._frames += head
            self._frames += data
            if not self._blocked:
                self._flush()
            return
        try:
            written = os.writev(fd, [head, data])
        except BlockingIOError:
            written = 0
        except BrokenPipeError:
            return
        if written < len(head) + data.nbytes:
            self._write(head[written:] + data[max(written - len(head), 0) :])

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

    async def wait_written(self) -> None:
        """Wait until all is in the pipe that has been sent; at once where the worker is gone."""
        if self._blocked:
            if self._written is None:
                self._written = self._loop.create_future()
            await asyncio.shield(self._written)

    def _unblocked(self) -> None:
        self._blocked = False
        self._loop.remove_writer(self._pipes.writer)
        written, self._written = self._written, None
        if written is not None:
            written.set_result(None)

    def close(self) -> None:
        """Let the worker see the end of its input, after what has been sent."""
        self._closing = True
        if not self._frames:
            self.close_now()

    def close_now(self) -> None:
        """Close the pipe, whatever has not been sent."""
        if self._blocked:
            self._unblocked()
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
            self._unread_answer_bytes = 0
            self._unblocked()
            if self._closing:
                self.close_now()


class Connection:
    """One worker's pipes on the loop, until the worker ends; `exited` has its `WorkerExit` then."""

    def __init__(
        self,
        worker: Worker,
        routes: Mapping[type[FromWorker], Route],
        on_captured: Callable[[StreamName, str, int], None],
        interceptors: list[Interceptor],
        max_frame_bytes: int,
        context: Context,
        stall_timeout: float | None = None,
    ) -> None:
        """Start to read.

        Args:
            worker: the process, and its pipes.
            routes: where messages go, by type.
            on_captured: takes what was written past Python: the stream, the text, and its length in bytes.
            interceptors: see each message before its route; may change at any time.
            max_frame_bytes: longest frame that may be sent or received.
            context: everything is called on the running loop in a copy of this context.
            stall_timeout: seconds for which the worker may stop inside a frame, None for ever.
        """
        self.worker = worker
        self.interceptors = interceptors
        self.max_frame_bytes = max_frame_bytes
        """Longest frame that may be sent; the handshake may lower it."""
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[WorkerExit] = loop.create_future()
        self._loop = loop
        self._context = context
        self._pipes = worker.pipes
        self.writer = FrameWriter(self._pipes, context)
        self.routes = routes
        """Where messages go, by type; holds from the next batch on."""
        self._forced_bytes = 0
        self._on_captured = on_captured
        self._decoder = ClientDecoder(max_frame_bytes)
        self._stall_detector = StallDetector(self._decoder.frames, stall_timeout, self._on_error)
        self._read_bytes = READ_BYTES
        self._capture = CapturePipes(self._pipes.captured_stdout, self._pipes.captured_stderr)
        self._reading = False
        self._reader_open = True
        self._paused_by: set[object] = set()
        self._force_count = 0
        self._draining = False
        self._stderr = StderrTail(self._pipes.stderr)
        self._eof_timer: asyncio.TimerHandle | None = None
        self._session_id = ""
        self._kill_timer: asyncio.TimerHandle | None = None
        self._reason = ""
        self.killed = False
        """Whether the worker was told to end."""
        self._cause: BaseException | None = None
        self._add_reader(self._pipes.exit_fd, self._on_exit)
        self._add_reader(self._pipes.stderr, self._on_stderr)
        self._set_reading()

    def _add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        # In the session's context, not in that of the task that happens to run now.
        self._context.run(self._loop.add_reader, fd, callback)

    # --- to the worker -------------------------------------------------------------------------------

    def encode(self, message: ToWorker) -> bytes:
        """Return a message's frame.

        Raises:
            ProtocolError: it does not encode, or its frame would be too long.
        """
        try:
            return encode(message, self.max_frame_bytes)
        except LocalProtocolError as error:
            raise ProtocolError(error.reason, error.offset) from error

    def send_hello(self, hello: Hello) -> None:
        """Send the first message, or what is left of it to send.

        Raises:
            ProtocolError: as `encode`.
        """
        self._session_id = hello.session_id
        frame = self.encode(hello)
        sent = self._pipes.greeting_sent
        if not frame.startswith(sent):
            raise ProtocolError(f"the greeting takes {len(frame)} bytes, too long for a worker from a pool")
        self.writer.write_now(frame[len(sent) :])

    def send(self, message: ToWorker) -> None:
        """Send a message now. To a worker that is gone nothing is sent: `exited` tells of its end.

        Raises:
            ProtocolError: as `encode`.
        """
        self.writer.write_now(self.encode(message))

    def send_chunk(self, chunk: ChunkMessage) -> None:
        """Send a chunk with data, of such a size that its frame is not too long."""
        self.writer.write_both_now(encode_chunk(chunk), chunk.data)

    def send_answer(self, message: CallResponse | InputResponse) -> None:
        """Send an answer to the worker. A worker that asks and does not read the answers is killed.

        Raises:
            ProtocolError: as `encode`.
        """
        waiting = self.writer.write_answer(self.encode(message))
        if waiting > _MAX_UNREAD_BYTES:
            text = f"it asks and does not read: {waiting:,} bytes of answers wait for it"
            self.kill(text, ProtocolError(text))

    def wake(self) -> None:
        """Make the worker read, whatever holds its loop."""
        self.worker.wake()

    def kill(self, reason: str, cause: BaseException | None = None) -> None:
        """Kill the worker; `reason` says why. Idempotent: the first reason stays."""
        if self.exited.done():
            return
        if not self.killed:
            self._reason = reason
            self.killed = True
            self._cause = cause
        self.worker.kill()
        if self._kill_timer is None:
            self._kill_timer = self._loop.call_later(_END_SECONDS, self._kill_outermost)

    def _kill_outermost(self) -> None:
        """End a worker that was killed and lives on: its owner does not wait for its keeper."""
        write(
            _logger,
            logging.WARNING,
            "worker %d did not end when it was killed; its keeper is killed too",
            self.worker.pid,
            extra=fields(self._session_id, worker=self.worker.pid),
        )
        self.worker.kill_outermost()

    # --- when to read --------------------------------------------------------------------------------

    def pause_reading(self, who: object) -> None:
        """Stop reading until `who` resumes it: it has more than it can take.

        The pipes fill up then, and the worker waits.
        """
        self._paused_by.add(who)
        self._set_reading()

    def resume_reading(self, who: object) -> None:
        """Take back that `who` has paused reading, if so."""
        self._paused_by.discard(who)
        self._set_reading()

    def start_forced_reading(self) -> None:
        """Read although consumers have paused it, until `stop_forced_reading`; calls nest.

        For while something waits for the worker's answer: a worker that is stuck in a full pipe gives none.
        """
        self._force_count += 1
        self._set_reading()

    def stop_forced_reading(self) -> None:
        """Take one `start_forced_reading` back."""
        self._force_count -= 1
        self._set_reading()

    def _set_reading(self) -> None:
        wanted = (self._force_count > 0 or not self._paused_by) and not self.exited.done()
        if not self._paused_by:
            self._forced_bytes = 0
        if wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            # What did not come while reading was paused is no fault of the worker's.
            self._stall_detector.start()
            if self._reader_open:
                self._add_reader(self._pipes.reader, self._on_readable)
            for fd in self._capture.open_fds:
                self._add_reader(fd, self._on_capture_readable)
        else:
            self._stop_reading()

    def _stop_reading(self) -> None:
        self._stall_detector.stop()
        for fd in (self._pipes.reader, self._pipes.captured_stdout, self._pipes.captured_stderr):
            self._loop.remove_reader(fd)

    # --- from the worker -----------------------------------------------------------------------------

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> int:
        """Read once and route what has come; return how many bytes it was."""
        size = self._read_bytes
        try:
            data = os.read(self._pipes.reader, size)
        except BlockingIOError:
            self._stall_detector.drained = True
            return 0
        if not data:
            self._on_eof()
            return 0
        try:
            messages = self._decoder.feed(data)
        except RemoteProtocolError as error:
            self._on_error(error)
            return 0
        full = len(data) == size
        watch = self._stall_detector
        watch.drained = not full
        if not watch.running and self._decoder.frames.buffered:
            watch.start()
        if self._paused_by and self._exceeds_forced_limit(len(data)):
            return 0
        self._read_bytes = next_read_bytes(len(messages), full=full)
        try:
            self._dispatch(messages)
        except BaseException as error:
            # A defect of the client, or Ctrl-C in a callback of the loop: nothing may be lost silently.
            self._on_error(error)
            if not isinstance(error, Exception):
                raise
        broken = self._decoder.error
        if broken is not None:
            self._on_error(broken)
        return len(data)

    def _exceeds_forced_limit(self, size: int) -> bool:
        self._forced_bytes += size
        if self._forced_bytes <= _MAX_FORCED_BYTES:
            return False
        self._on_error(
            ProtocolError(f"it sent {self._forced_bytes:,} bytes that are not taken, and did not answer")
        )
        return True

    def _dispatch(self, messages: list[FromWorker]) -> None:
        routes = self.routes
        # What was written before any of these was sent is in the pipes by now: one read is enough.
        drained = False
        before: dict[StreamName, int] = {}
        for message in messages:
            kind = type(message)
            # Not with a tuple: `isinstance` then takes its slow way for every result too.
            last = message if isinstance(message, Result) or isinstance(message, Error) else None  # noqa: SIM101
            if not drained:
                if kind in _AFTER_CAPTURED if last is None else last.captured:
                    drained = True
                    self._deliver_captured(self._capture.drain())
                elif isinstance(message, Output | OutputRest) and (
                    message.captured_stdout or message.captured_stderr
                ):
                    waited = message.captured_stdout, message.captured_stderr
                    self._deliver_captured(self._capture.read_first(*waited, before))
            if last is not None and self._capture.partial:
                self._deliver_captured(self._capture.flush())
            if self.interceptors and self._intercepted(message):
                continue
            if self._draining and kind in _QUESTIONS:
                continue
            routes[kind](message)

    def _intercepted(self, message: FromWorker) -> bool:
        taken = False
        # A copy: one may take itself off the list.
        for interceptor in tuple(self.interceptors):
            try:
                if interceptor(message):
                    taken = True
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is logged
                text, kind = "an interceptor failed on %s", type(message).__name__.lower()
                extra = fields(self._session_id, worker=self.worker.pid)
                write(_handlers_logger, logging.ERROR, text, kind, exc_info=error, extra=extra)
        return taken

    def _on_capture_readable(self) -> None:
        # First note how far the captured bytes go, then read frames, then the bytes up to there. So a
        # frame sent before a byte was written comes before it, and one sent after it says that it was.
        marks = self._capture.marks()
        if self._reader_open:
            self._read()
        if not self.exited.done():
            before = self._capture.open_fds
            self._deliver_captured(self._capture.read_to(marks))
            for fd in before:
                if fd not in self._capture.open_fds:
                    self._loop.remove_reader(fd)

    def _deliver_captured(self, chunks: list[Chunk]) -> None:
        for stream, text, size in chunks:
            self._on_captured(stream, text, size)

    # --- the end -------------------------------------------------------------------------------------

    def _on_eof(self) -> None:
        self._reader_open = False
        self._loop.remove_reader(self._pipes.reader)
        try:
            self._decoder.close()
        except RemoteProtocolError as error:
            self._cause = self._cause or error
        # The process is about to end. One that lives on without its connection is of no use.
        text = "it closed its end of the connection and lived on"
        self._eof_timer = self._loop.call_later(_EXIT_AFTER_EOF_SECONDS, self.kill, text, ProtocolError(text))

    def _on_error(self, error: BaseException) -> None:
        """Stop reading frames and kill the worker: the stream cannot be read any more."""
        self._reader_open = False
        self._loop.remove_reader(self._pipes.reader)
        if isinstance(error, RemoteProtocolError):
            # Not with its cause, whose text may be as long as a frame.
            error = ProtocolError(truncated(error.reason), error.offset)
        if isinstance(error, ProtocolError):
            self.kill(f"it broke the protocol: {error}", error)
        else:
            self.kill(f"its message could not be handled: {truncated(repr(error))}", error)

    def _on_stderr(self) -> None:
        if not self._stderr.read():
            self._loop.remove_reader(self._pipes.stderr)

    def _on_exit(self) -> None:
        # Processes that are left of its group could go on writing, so that the pipes would never end.
        self.worker.kill()
        self._force_count = 0
        self._paused_by.clear()
        self._drain_rest()
        self._stderr.read_rest()
        ending = self.worker.reap()
        for fd in (self._pipes.exit_fd, self._pipes.stderr):
            self._loop.remove_reader(fd)
        self._stop_reading()
        self._reading = False
        for timer in (self._eof_timer, self._kill_timer):
            if timer is not None:
                timer.cancel()
        self.writer.close_now()
        self._pipes.close()
        self.exited.set_result(
            WorkerExit(
                ending.exit_code,
                ending.signal,
                self._stderr.text,
                self._reason,
                self._cause,
                ending.peak_rss,
            )
        )

    def _drain_rest(self) -> None:
        rest = _LAST_BYTES
        self._draining = True
        while self._reader_open and rest > 0:
            size = self._read()
            if size == 0:
                break
            rest -= size
        self._deliver_captured(self._capture.drain())
        self._deliver_captured(self._capture.flush())
