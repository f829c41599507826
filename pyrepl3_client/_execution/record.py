"""One execution as the client knows it: what to run, its output, its outcome, and the tasks that wait for it.

ExecutionRecord   all of this
TextBuffer        text in pieces, for its output
ReplayFilter      tells which output was delivered already, when an execution is run again
ExecutionOwner    what an execution needs of its session
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from pyrepl3_client._concurrency.uncancellable import wait_and_forward_cancel
from pyrepl3_client._execution.backpressure import FlowControl
from pyrepl3_client._execution.displays import HeldDisplays
from pyrepl3_client._execution.event_log import Event, EventLog
from pyrepl3_client._execution.handlers import Handlers
from pyrepl3_client._execution.kept_output import KeptOutput
from pyrepl3_client._execution.serving import Served, current_served
from pyrepl3_client._journal.outcomes import RecordedOutput, record_output
from pyrepl3_client._journal.protocol import Spec
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.spans import ExecutionSpan
from pyrepl3_client.errors import (
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionTimeout,
    OutputNotKept,
    failure_as_data,
)
from pyrepl3_client.results import EMPTY_TEXT, ExecutionResult, LazyText, make_failed_result, make_result
from pyrepl3_schemas.lifecycle import EXECUTION_MOVES, ExecutionState, move_execution
from pyrepl3_schemas.messages import CancelReason, Display, Error, Output, Result, StreamName

_SHORT_CHARS: Final = 256
"""A text with fewer characters takes more memory for the object than for its characters."""


_MAX_SHORT_PIECES: Final = 1024

# Read once: a member of an enumeration is looked up in its metaclass too.
_QUEUED: Final = ExecutionState.QUEUED
_RUNNING: Final = ExecutionState.RUNNING
_FINISHED: Final = ExecutionState.FINISHED


class TextBuffer(list[str]):
    """Text in pieces. A piece takes some 60 bytes by itself, so many short ones in a row are joined."""

    __slots__ = ("_short_in_row",)

    def __init__(self) -> None:
        """Start without pieces."""
        super().__init__()
        self._short_in_row = 0

    def add(self, text: str) -> None:
        """Add a piece."""
        self.append(text)
        if len(text) >= _SHORT_CHARS:
            self._short_in_row = 0
            return
        self._short_in_row += 1
        if self._short_in_row == _MAX_SHORT_PIECES:
            self[-_MAX_SHORT_PIECES:] = ("".join(self[-_MAX_SHORT_PIECES:]),)
            self._short_in_row = 0


@dataclass(frozen=True, slots=True)
class SentOutput:
    """What a worker had sent of an execution when it died."""

    stdout: TextBuffer | None
    stderr: TextBuffer | None
    displays: HeldDisplays | None
    truncated: bool
    kept: KeptOutput | None


class ReplayFilter:
    """Compares the output of an execution that is run again with what was delivered before."""

    __slots__ = ("_displays", "_expected")

    def __init__(self, stdout: str, stderr: str, displays: Iterable[Display]) -> None:
        """Expect the output that was delivered to come again."""
        self._expected = {"stdout": stdout, "stderr": stderr}
        self._displays = list(displays)

    def unseen(self, output: Output) -> Output | None:
        """Return the part of an output that was not seen before, None when it is all known."""
        expected = self._expected[output.stream]
        if not expected:
            return output
        data = output.data
        if expected.startswith(data):
            self._expected[output.stream] = expected[len(data) :]
            return None
        self._expected[output.stream] = ""
        if data.startswith(expected):
            return msgspec.structs.replace(output, data=data[len(expected) :])
        return output

    def is_unseen(self, display: Display) -> bool:
        """Return whether a display was not seen before."""
        if self._displays and self._displays[0] == display:
            del self._displays[0]
            return False
        self._displays.clear()
        return True


class ReadableText(Protocol):
    """What an execution has written, in a place that is not this process's memory."""

    async def read(self, stream: StreamName, start: int, stop: int | None) -> str:
        """Return a part of it. See `KeptOutput.read`."""
        ...


class ExecutionOwner(Protocol):
    """What an execution needs of its session."""

    unsettled: "dict[ExecutionRecord, None]"
    """The executions it has taken that have neither an outcome nor a failure, in their order.

    An execution takes itself off when it gets one; nothing else does. So the end of the session ends all
    that anybody can wait for, wherever each execution is just then."""

    def flow_control(self) -> FlowControl:
        """Return what stops and restarts the reading of messages."""
        ...

    def request_cancel(self, execution: "ExecutionRecord", reason: CancelReason) -> None:
        """Take the next step towards the execution's end."""
        ...


class ExecutionRecord(msgspec.Struct, eq=False):
    """One execution, as the rooms of the client see it; users hold an `Execution`, which stands before it.

    Every execution makes one, so it is a struct: its many defaults are set without a line of Python each.
    """

    owner: ExecutionOwner
    """What it belongs to: the queue of its session."""
    execution_id: str
    spec: Spec
    """What to run."""
    seconds: float | None
    """Its deadline, from its beginning."""
    handlers: Handlers
    """Get its output and displays, and answer its prompts."""
    check: bool | None
    """Whether `result` raises when the code failed; None if the next caller decides."""
    keep: bool
    """Whether its messages are kept for an iteration."""
    named: bool = True
    """Whether its id need not be the next of those that the session makes up."""
    is_replay: bool = False
    """Whether it has ended once and is run again for its effect on the namespace."""
    submitted_for: Served | None = msgspec.field(default_factory=current_served)
    """What the host function that has submitted it serves, if one has."""
    state: ExecutionState = _QUEUED
    """Its state; `move` changes it. It runs when it is the oldest that its worker has."""
    recorded: bool = False
    """Whether it may be sent: it is on record."""
    number: int = 0
    """Its number in the session's record; 0 before it has one."""
    attempts: int = 1
    """How many workers have run it or begun to, the present one included."""
    replayed: bool = False
    """Whether the outcome was on record already."""
    notices: tuple[str, ...] = ()
    """What the result tells of the session, for the reader of the result."""
    failure_cause: BaseException | None = None
    """What the exception that it ends with came from, as far as this process knows."""
    output_bytes: int = 0
    rest_bytes: int = 0
    """Bytes that the worker has sent past the head of the output."""
    truncated: bool = False
    """Whether output was cut to keep the bound."""
    kept: KeptOutput | None = None
    """All that it has written, if its output was cut."""
    text_on_record: ReadableText | None = None
    """Reads its output from the record, if it is there."""
    watch: ExecutionSpan | None = None
    """Is told of its beginning and its end, where spans are made."""
    on_text: Callable[[], None] | None = None
    """Called when it has taken text, where that is recorded while it runs."""
    partial: str = ""
    """Why some of its output may be missing here; empty while it is whole, or in `kept`."""
    _stdout: TextBuffer | None = None
    _stderr: TextBuffer | None = None
    _displays: HeldDisplays | None = None
    _log: EventLog | None = None
    _outcome: Result | Error | None = None
    _failure: BaseException | None = None
    _callback_error: Exception | None = None
    _result: ExecutionResult | None = None
    _result_waiters: list[asyncio.Future[None]] | None = None
    _end_waiters: list[asyncio.Future[None]] | None = None
    _replay_filter: ReplayFilter | None = None
    _last_output: SentOutput | None = None
    """What its last worker had sent when it died."""

    @property
    def code(self) -> str:
        """The source that was submitted."""
        return self.spec.code

    def __repr__(self) -> str:
        """Show id and state."""
        return f"<ExecutionRecord {self.execution_id!r} {self.state.value}>"

    @property
    def done(self) -> bool:
        """Whether its last message has come, or will never come."""
        return self.state is _FINISHED

    def move(self, state: ExecutionState) -> None:
        """Enter another state.

        Raises:
            LocalProtocolError: the table of moves does not have that one.
        """
        if state not in EXECUTION_MOVES[self.state]:
            move_execution(self.state, state)  # raises
        self.state = state

    def begin(self) -> None:
        """Enter the running state; as `move`, without its look-up, since every execution comes by here."""
        if self.state is not _QUEUED:
            self.move(_RUNNING)
        self.state = _RUNNING
        if self.watch is not None:
            self.watch.begun()

    # --- waiting -------------------------------------------------------------------------------------

    async def result(self) -> ExecutionResult:
        """Wait for the outcome; cancelling this wait leaves the execution alone. See `Execution.result`."""
        if self._outcome is None and self._failure is None:
            await self._next_waiter()
        return self._conclude(check=self.check is not False)

    def _next_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._result_waiters is None:
            self._result_waiters = [waiter]
        else:
            self._result_waiters.append(waiter)
        return waiter

    async def cancel(self, reason: CancelReason = "cancelled") -> None:
        """Stop the execution and wait until it is over. See `Execution.cancel`."""
        if not self.done:
            self.owner.request_cancel(self, reason)
            await self.wait_done()

    async def wait_done(self) -> None:
        """Wait until the last message has come, or will never come."""
        while not self.done:
            waiter = asyncio.get_running_loop().create_future()
            if self._end_waiters is None:
                self._end_waiters = []
            self._end_waiters.append(waiter)
            await waiter

    async def wait_settled(self) -> None:
        """Wait until it has an outcome or a failure, whatever that is."""
        if not self.settled:
            await self._next_waiter()

    async def wait_or_cancel(self, *, check: bool | None = None) -> ExecutionResult:
        """Wait for the outcome; when this wait is cancelled, cancel the execution and see its end.

        Args:
            check: whether a failure of the code is raised; None for what it was started with.
        """
        try:
            if self._outcome is None and self._failure is None:
                await self._next_waiter()
            return self._conclude(check=self.check is not False if check is None else check)
        except asyncio.CancelledError:
            if not self.done:
                self.owner.request_cancel(self, "cancelled")
                await wait_and_forward_cancel(
                    self.wait_done, lambda: self.owner.request_cancel(self, "cancelled")
                )
            raise

    # --- its messages --------------------------------------------------------------------------------

    def event_log(self) -> EventLog:
        """Return the messages that no iteration has taken yet."""
        log = self._log
        if log is None:
            log = self._log = EventLog(self.owner.flow_control)
            if self._outcome is not None:
                log.add(self._outcome)
        return log

    @property
    def interrupted_output(self) -> SentOutput | None:
        """What its last worker had sent when it died, until it is run again."""
        return self._last_output

    def add_text(self, stream: StreamName, text: str) -> None:
        """Take text that no handler sees."""
        if self.on_text is not None:
            self.on_text()
        if stream == "stdout":
            if self._stdout is None:
                self._stdout = TextBuffer()
            self._stdout.add(text)
        else:
            if self._stderr is None:
                self._stderr = TextBuffer()
            self._stderr.add(text)

    def pieces(self, stream: StreamName) -> Sequence[str]:
        """Return what was taken of a stream, in pieces."""
        return (self._stdout if stream == "stdout" else self._stderr) or ()

    async def read_output(self, start: int, stop: int | None, stream: StreamName) -> str:
        """Return a part of what it has written so far. See `Execution.output`."""
        recorded = self.text_on_record
        if self.kept is not None and (recorded is None or not self.kept.has_made_room):
            return await self.kept.read(stream, start, stop)
        if recorded is not None:
            return await recorded.read(stream, start, stop)
        if self.partial:
            raise OutputNotKept(f"the output of {self.execution_id!r} is not all here: {self.partial}")
        return _slice_of(self.pieces(stream), start, stop)

    def add_output(self, message: Output) -> Output | None:
        """Take output; return the part of it that was not delivered before, None when there is none."""
        self.add_text(message.stream, message.data)
        if self._displays is not None:
            self._displays.something_comes()
        unseen = message if self._replay_filter is None else self._replay_filter.unseen(message)
        if unseen is not None:
            self._log_event(unseen)
        return unseen

    def add_display(self, message: Display, limit: int | None = None) -> Display | None:
        """Take a display; return it as it is to be shown, None if it is not, or was before.

        Args:
            message: the display.
            limit: bytes of rich data that the execution may show.
        """
        if self._displays is None:
            self._displays = HeldDisplays(limit)
        shown = self._displays.add(message)
        if self._displays.cut:
            self.truncated = True
        if shown is None or (self._replay_filter is not None and not self._replay_filter.is_unseen(shown)):
            return None
        self._log_event(shown)
        return shown

    def add_event(self, message: Event) -> None:
        """Take a message that is neither output nor display nor the last."""
        self._log_event(message)

    def _log_event(self, message: Event) -> None:
        if self.keep:
            if self._log is None:
                self._log = EventLog(self.owner.flow_control)
            self._log.add(message)

    def share_with(self, handlers: Handlers, *, check: bool) -> None:
        """Serve a second caller of the same execution; its handlers count where there are none yet."""
        self.handlers = self.handlers.or_else(handlers)
        if self.check is None:
            self.check = check

    def reset(self) -> None:
        """Go back to the queue after the worker's death; output that was delivered is not delivered again."""
        if self._stdout or self._stderr or self._displays:
            self._replay_filter = ReplayFilter(
                "".join(self._stdout or ()), "".join(self._stderr or ()), self._shown()
            )
        self._last_output = SentOutput(self._stdout, self._stderr, self._displays, self.truncated, self.kept)
        self._stdout = self._stderr = self._displays = self.kept = None
        self.truncated = False
        self.output_bytes = self.rest_bytes = 0
        if self.watch is not None:
            self.watch.interrupted()
        if self.state is _RUNNING:
            # One that is being cancelled stays that: it is ended, and no worker runs it again.
            self.move(_QUEUED)

    def keep_last_output(self) -> None:
        """It is not run again: what its last worker sent is its output, before what came late."""
        if self._last_output is None:
            return
        last, self._last_output = self._last_output, None
        if last.stdout is not None:
            last.stdout.extend(self._stdout or ())
            self._stdout = last.stdout
        if last.stderr is not None:
            last.stderr.extend(self._stderr or ())
            self._stderr = last.stderr
        if last.displays is not None:
            last.displays.displays.extend(self._shown())
            self._displays = last.displays
        self.truncated = self.truncated or last.truncated
        self.kept = self.kept or last.kept

    def _shown(self) -> tuple[Display, ...]:
        return () if self._displays is None else tuple(self._displays.displays)

    def recorded_output(self) -> RecordedOutput:
        """Return the output, as it is recorded."""
        if self._stdout is None and self._stderr is None and self._displays is None:
            return RecordedOutput(truncated=self.truncated)
        return record_output(
            "".join(self._stdout or ()),
            "".join(self._stderr or ()),
            self._shown(),
            truncated=self.truncated,
        )

    def mark_done(self) -> None:
        """Note that the last message has come; `finish` delivers it in its turn. Idempotent."""
        if self.state is _FINISHED:
            return
        self.state = _FINISHED  # which may follow any other
        if self._log is not None:
            self._log.unbind()
        if self._end_waiters is not None:
            for waiter in self._end_waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def finish(self, outcome: Result | Error) -> None:
        """Deliver the last message. Only the first outcome or failure counts."""
        if self._outcome is None and self._failure is None:
            self._outcome = outcome
            self.owner.unsettled.pop(self, None)
            if self._log is not None:
                self._log.add(outcome)
            self._wake()
            if self.watch is not None:
                self._end_watch()

    def fail(self, failure: BaseException) -> None:
        """End without an outcome; each wait for the result raises `failure`, each wait for the end ends."""
        self.mark_done()
        if self._outcome is None and self._failure is None:
            self._failure = failure
            self.owner.unsettled.pop(self, None)
            if self._log is not None:
                self._log.wake()
            self._wake()
            if self.watch is not None:
                self._end_watch()

    def set_callback_error(self, error: Exception) -> None:
        """Keep what `on_output` raised: each wait for the result raises it."""
        if self._callback_error is None:
            self._callback_error = error

    def _wake(self) -> None:
        if self._result_waiters is not None:
            for waiter in self._result_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._result_waiters = None

    def watch_by(self, watch: ExecutionSpan) -> None:
        """Have it watched; it may have begun, or have its outcome, already."""
        self.watch = watch
        if self.settled:
            self._end_watch()
        elif self.state is _RUNNING:
            watch.begun()

    def _end_watch(self) -> None:
        watch, self.watch = self.watch, None
        if watch is None:
            return
        mode, error_type = "", ""
        match self._outcome:
            case Result():
                outcome, mode = "ok", self._outcome.mode
            case Error(kind=kind, exception=exception):
                outcome, error_type = kind, exception if kind == "exception" else kind
            case None:
                data = None if self._failure is None else failure_as_data(self._failure)
                outcome = "failed" if data is None else data.kind
                error_type = type(self._failure).__name__
        watch.ended(self.execution_id, outcome, error_type, mode, self.attempts, replayed=self.replayed)

    def _conclude(self, *, check: bool) -> ExecutionResult:
        if self._failure is not None:
            return self._conclude_failure(self._failure, check=check)
        outcome = self._outcome
        assert outcome is not None
        result = self._result
        if result is None:
            result = self._result = make_result(
                outcome,
                LazyText(self._stdout) if self._stdout else EMPTY_TEXT,
                LazyText(self._stderr) if self._stderr else EMPTY_TEXT,
                () if self._displays is None else self._shown(),
                output_truncated=self.truncated,
                replayed=self.replayed,
                attempts=self.attempts,
                notices=self.notices,
            )
        if self._callback_error is not None:
            raise self._callback_error
        error = result.error
        if error is not None and check:
            if error.kind == "timeout":
                raise ExecutionTimeout(result)
            raise ExecutionCancelled(result) if error.kind == "cancelled" else ExecutionFailed(result)
        return result

    def _conclude_failure(self, failure: BaseException, *, check: bool) -> ExecutionResult:
        error = None if check else failure_as_data(failure)
        if error is None:
            raise failure
        if self._callback_error is not None:
            raise self._callback_error
        if self._result is None:
            self._result = make_failed_result(
                self.execution_id,
                error,
                LazyText(self._stdout) if self._stdout else EMPTY_TEXT,
                LazyText(self._stderr) if self._stderr else EMPTY_TEXT,
                self._shown(),
                output_truncated=self.truncated,
                replayed=self.replayed,
                attempts=self.attempts,
                notices=self.notices,
            )
        return self._result

    @property
    def settled(self) -> bool:
        """Whether no more events will come."""
        return self._outcome is not None or self._failure is not None

    @property
    def failure(self) -> BaseException | None:
        """Why there is no outcome."""
        return self._failure


def watch_execution(telemetry: Telemetry, execution: ExecutionRecord, *, is_resumed: bool = False) -> None:
    """Have an execution that has been submitted watched, where spans are made.

    Args:
        telemetry: the session's.
        execution: what was submitted; one that is watched already stays as it is.
        is_resumed: whether another process has submitted it.
    """
    if telemetry.spans is not None and execution.watch is None and telemetry.spans.are_heard:
        spec, key = execution.spec, execution.execution_id
        execution.watch_by(
            telemetry.spans.begin_execution(
                key, spec.filename, is_replay=execution.is_replay, is_resumed=is_resumed
            )
        )


def _slice_of(pieces: Sequence[str], start: int, stop: int | None) -> str:
    """Return a slice of a text in pieces: who reads on and on must not join all of it each time."""
    first, end, _ = slice(start, stop).indices(sum(map(len, pieces)))
    found: list[str] = []
    begin = 0
    for piece in pieces:
        if begin >= end:
            break
        after = begin + len(piece)
        if after > first:
            found.append(piece[max(first - begin, 0) : end - begin])
        begin = after
    return "".join(found)
