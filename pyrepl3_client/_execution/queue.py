"""The executions of a session that are under way, and where each message about them goes."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.answering import AnsweringTasks
from pyrepl3_client._execution.backpressure import MESSAGE_BYTES, FlowControl, OrderedDelivery
from pyrepl3_client._execution.call_log import CallLog, Question, question_id
from pyrepl3_client._execution.cancellation import (
    CancelActions,
    CancellationLadder,
    cancelled_before_start,
    must_not_rerun,
    stopped_behind,
)
from pyrepl3_client._execution.event_log import Event, size_of
from pyrepl3_client._execution.handlers import Handlers
from pyrepl3_client._execution.host_calls import Capabilities, HostCalls
from pyrepl3_client._execution.kept_output import OutputKeeper
from pyrepl3_client._execution.output import OutputDispatcher
from pyrepl3_client._execution.prompts import Prompts
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._execution.serving import Served, WaitingNotice
from pyrepl3_client._journal.protocol import Record
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._wire.connection import Connection, Route
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import ExecutionIdConflict, ProtocolError, StoreError, WorkerDied
from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import (
    Abandoned,
    Call,
    CallResponse,
    Cancel,
    CancelReason,
    Display,
    Error,
    Execute,
    FromWorker,
    Input,
    InputResponse,
    Output,
    OutputRest,
    Result,
    StreamName,
)

# Read once: a member of an enumeration is looked up in its metaclass too.
_QUEUED: Final = ExecutionState.QUEUED
_CANCELLING: Final = ExecutionState.CANCELLING
_FINISHED: Final = ExecutionState.FINISHED

type OutcomeHandler = Callable[[ExecutionRecord, Result | Error, bool], None]
"""Takes an execution, its last message, and whether it is not to be run again for its effect; is called when
the message's turn comes, and settles the execution, if by a failure."""


@dataclass(frozen=True, slots=True)
class SessionCallbacks:
    """What the queue calls in its session."""

    connection: Callable[[], Connection]
    """Returns the connection to the present worker."""
    record: Record
    """What calls and prompts are recorded in."""
    on_outcome: OutcomeHandler
    on_failure: Callable[[str, StoreError], bool]
    """Takes the execution whose call or prompt could not be recorded; returns whether it ends that."""
    set_values: Callable[[bytes], Awaitable[None]]
    """Sets variables in the present worker, from a flat body."""
    on_divergence: Callable[[str, str], None]
    """Takes the execution that asked for something else than its record holds, and a text that says what."""
    cpu_seconds: Callable[[], float | None]
    """Returns the CPU time that the worker's processes have used, None without a worker."""
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class Interrupted:
    """What a worker's death has interrupted."""

    first: ExecutionRecord | None
    """The execution that ran."""
    stopped: list[tuple[ExecutionRecord, CancelReason]]
    """The executions that were being stopped, and why."""


class ExecutionQueue:
    """Executions in the order in which they were submitted, which is the order in which they run.

    One that is submitted waits until it is `recorded`, those before it are, and a worker takes
    executions (`open`). Those that are sent wait again when their worker is gone (`suspend`).
    """

    def __init__(
        self,
        config: WorkerConfig,
        task_owner: TaskOwner,
        capabilities: Capabilities,
        handlers: Handlers,
        callbacks: SessionCallbacks,
    ) -> None:
        """Start without executions.

        Raises:
            CapabilityError: a capability cannot be offered.
        """
        self._connection = callbacks.connection
        self._on_outcome = callbacks.on_outcome
        self._on_input = handlers.on_input
        self._max_frame_bytes = config.executor.max_frame_bytes
        self.unsettled: dict[ExecutionRecord, None] = {}
        """See `ExecutionOwner`: wherever they are, here, at the recorder or in a replay."""
        # A plain dict looks for its first item past all that were taken out before it.
        self._executions = OrderedDict[str, ExecutionRecord]()
        """Sent to the present worker, in order."""
        self._waiting = OrderedDict[str, ExecutionRecord]()
        self._open = False
        self._refusal: Callable[[], BaseException] | None = None
        """What to fail with until there is another worker: the executions have been failed, or abandoned."""
        self.last_number = 0
        """The number of the last execution that was sent."""
        self.ending: dict[str, bool] = {}
        """Executions whose last message has come and is not recorded; whether not to run them again."""
        self._delivery = OrderedDelivery(task_owner, self.flow_control)
        keeper = self.keeper = OutputKeeper(config.max_spill_bytes, config.spill_directory)
        self._output = OutputDispatcher(task_owner, self._delivery, handlers, config.executor, self, keeper)
        self.call_log = CallLog(
            callbacks.record,
            self._answer,
            callbacks.on_divergence,
            config.executor.max_frame_bytes,
            callbacks.set_values,
        )
        self._notice = WaitingNotice(task_owner.loop, self._waits_behind_call, callbacks.telemetry.session_id)
        self._answering = AnsweringTasks(
            task_owner,
            self.call_log,
            callbacks.on_failure,
            self.flow_control,
            self._served,
            self._notice.look_later,
            self._note_pause,
        )
        self._prompts = Prompts(task_owner, self._answering)
        self.calls = HostCalls(config, capabilities, task_owner, self._answering, callbacks.telemetry)
        self._cancellation = CancellationLadder(
            CancelActions(
                self._send_cancel,
                lambda: self._connection().wake(),
                self._give_up,
                self._kill_worker,
                lambda: self.first,
                self._answering.pauses,
                callbacks.cpu_seconds,
            ),
            config.cancel_grace,
            config.kill_grace,
        )
        self._forcing_reading: set[str] = set()
        self._holding: ExecutionRecord | None = None
        """The execution at the worker that nothing is sent behind: if it fails, that is not run."""

    @property
    def routes(self) -> dict[type[FromWorker], Route]:
        """Where the messages go that are about executions."""
        return {
            Output: self._route_output,
            OutputRest: self._route_rest,
            Display: self._route_display,
            Input: self._route_question,
            Call: self._route_question,
            Abandoned: self._route_abandoned,
            Result: self._route_last,
        }

    @property
    def first(self) -> ExecutionRecord | None:
        """The execution that runs: the oldest one sent without a last message."""
        return next(iter(self._executions.values()), None)

    @property
    def oldest(self) -> ExecutionRecord | None:
        """The oldest one without a last message, whether it runs or waits for a worker."""
        return self.first or next(iter(self._waiting.values()), None)

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of what is under way, the running one first."""
        return (*self._executions, *self._waiting)

    @property
    def waiting(self) -> tuple[ExecutionRecord, ...]:
        """The executions that no worker has, in order."""
        return tuple(self._waiting.values())

    def find(self, execution_id: str) -> ExecutionRecord | None:
        """Return an execution that is under way."""
        return self._executions.get(execution_id) or self._waiting.get(execution_id)

    def runs(self, execution_id: str) -> bool:
        """Return whether an execution is the one that runs."""
        return next(iter(self._executions), None) == execution_id

    def is_cancelling(self, execution_id: str) -> bool:
        """Return whether the worker has an execution and was asked to stop it."""
        execution = self._executions.get(execution_id)
        # One that is finished and still at the worker was given up by the client before its turn came.
        return execution is not None and execution.state in (_CANCELLING, _FINISHED)

    def busy(self) -> str:
        """Return in words what the worker is doing; empty when that is nothing."""
        first = self.first
        return "" if first is None else f"running {first.execution_id!r}"

    def submit(self, execution: ExecutionRecord) -> None:
        """Take an execution that is on record: it is sent as soon as it may run.

        Raises:
            ExecutionIdConflict: an execution of its id is under way.
            ProtocolError: its code cannot be sent.
        """
        if self._open and not self._waiting and self._holding is None:
            connection = self._connection()
            if not connection.killed:
                self._refuse_taken(execution.execution_id)
                self._send(execution, connection)
                return
        self.reserve(execution)
        self.release(execution)

    def reserve(self, execution: ExecutionRecord) -> None:
        """Put an execution in its place among those that wait; `release` lets it go on.

        Raises:
            ExecutionIdConflict: an execution of its id is under way.
            ProtocolError: its code cannot be sent.
        """
        self._refuse_taken(execution.execution_id)
        try:
            encode(_message(execution), self._max_frame_bytes)
        except LocalProtocolError as error:
            raise ProtocolError(error.reason, error.offset) from error
        self.unsettled[execution] = None
        self._waiting[execution.execution_id] = execution

    def release(self, execution: ExecutionRecord) -> None:
        """Let an execution that is on record now be sent when its turn comes."""
        execution.recorded = True
        self._pump()

    def drop(self, execution: ExecutionRecord) -> None:
        """Take an execution that has not been sent off the queue; who calls this settles it."""
        if self._waiting.get(execution.execution_id) is execution:
            behind = self._stopped_with(execution)
            del self._waiting[execution.execution_id]
            self._stop(behind, execution, "it was given up")
            self._cancellation.forget(execution)
            execution.mark_done()
            self._pump()

    def open(self) -> None:
        """Send the executions that wait: a worker takes them now."""
        self._open = True
        self._output.replaying = False
        if self._answering.busy:
            self._answering.end_where(self._is_forlorn)
        self._pump()

    def _is_forlorn(self, execution_id: str, call_id: str) -> bool:
        """Return whether a question is one of an execution that has ended, which this worker never asked."""
        return self.find(execution_id) is None and not self.call_log.is_awaited(execution_id, call_id)

    def suspend(self) -> Interrupted:
        """Let what was sent wait again, in order, as the worker is gone; return what was interrupted."""
        self._open = False
        self._refusal = None
        self._output.replaying = True
        first = self.first
        stopped: list[tuple[ExecutionRecord, CancelReason]] = [
            (execution, reason)
            for execution in self._executions.values()
            if not execution.done and (reason := self._cancellation.reason(execution)) is not None
        ]
        self._lose_worker()
        again = OrderedDict[str, ExecutionRecord]()
        for key, execution in self._executions.items():
            if execution.is_replay:
                # The recovery that ran it was given up; the next one asks the record what to run.
                execution.fail(WorkerDied(f"{key!r} was run again by a recovery that was given up"))
            elif not execution.done:  # one that was given up while it was queued has its outcome already
                execution.reset()
                again[key] = execution
        self._waiting = again | self._waiting
        self._executions.clear()
        return Interrupted(first, stopped)

    def abandon(self, error: Callable[[], BaseException]) -> None:
        """End each execution that was run again with its own error: the worker is gone before `open`."""
        self._lose_worker()
        for execution in list(self._executions.values()):
            del self._executions[execution.execution_id]
            self.call_log.forget(execution.execution_id)
            execution.mark_done()
            execution.fail(error())

    def _lose_worker(self) -> None:
        self._holding = None
        self.call_log.worker_gone()
        self._forcing_reading.clear()
        for execution in self._executions.values():
            self._output.interrupted(execution)
            self._cancellation.forget(execution)
        self._output.clear()

    def fail_all(
        self, error: Callable[[], BaseException], settled_later: Collection[ExecutionRecord] = ()
    ) -> None:
        """End every execution that is not settled with an error of its own, wherever it is.

        One whose last message waits for its turn gets that first. Those `settled_later` are left alone.
        """
        self._open = self._output.replaying = False
        self._refusal = error
        self._lose_worker()
        for execution in [each for each in self.unsettled if each not in settled_later]:
            self.fail(execution, error())
        self._answering.end_where(lambda execution_id, _: self.find(execution_id) is None)

    def fail(self, execution: ExecutionRecord, failure: BaseException) -> None:
        """End one execution with an error, whatever the worker says of it later."""
        self._conclude(execution, partial(execution.fail, failure))

    def end(self, execution: ExecutionRecord, outcome: Error) -> None:
        """End one execution that is not at the worker, with an outcome."""
        self._conclude(execution, partial(self._on_outcome, execution, outcome, True))

    def _conclude(self, execution: ExecutionRecord, last: Callable[[], None]) -> None:
        for place in (self._executions, self._waiting):
            if place.get(execution.execution_id) is execution:
                del place[execution.execution_id]
        # Another execution may have its id by now, if it was at the recorder.
        if self.find(execution.execution_id) is None:
            self._drop_questions(execution.execution_id)
            self._cancellation.forget(execution)
        execution.mark_done()
        self._delivery.add(last)

    async def close(self, grace: float) -> None:
        """Wait for output handlers, at most `grace` seconds; what they keep waiting is delivered then."""
        self._notice.close()
        await self._delivery.close(grace)

    def _refuse_taken(self, execution_id: str) -> None:
        if execution_id in self._executions or execution_id in self._waiting:
            raise ExecutionIdConflict(f"execution id {execution_id!r} is in flight in this session")

    def _pump(self) -> None:
        # One that is being killed gets nothing any more: what it never began is not to be blamed for its end.
        while self._open and self._waiting and self._holding is None and not self._connection().killed:
            execution = next(iter(self._waiting.values()))
            if not execution.recorded:
                return
            del self._waiting[execution.execution_id]
            self.send(execution)

    def send(self, execution: ExecutionRecord) -> None:
        """Send an execution past those that wait: one whose turn it is, or that brings a namespace back."""
        if self._refusal is not None:
            execution.fail(self._refusal())
            return
        self._send(execution, self._connection())

    def _send(self, execution: ExecutionRecord, connection: Connection) -> None:
        frame = connection.encode(_message(execution))
        waits = bool(self._executions)
        if waits:
            # The worker is busy with another: what is submitted in one turn of the loop goes in one write.
            connection.writer.write_batched(frame)
        else:
            connection.writer.write_now(frame)
            execution.begin()
        execution.recorded = True
        self._executions[execution.execution_id] = execution
        self.unsettled[execution] = None
        if execution.spec.on_error != "continue" and not execution.is_replay:
            self._holding = execution
        if waits and self._answering.busy:
            self._notice.look_later()
        if execution.number > self.last_number:  # noqa: PLR1730 - `max` is a call, for each execution
            self.last_number = execution.number
        if execution.seconds is not None:
            self._cancellation.start_timeout(execution, execution.seconds)

    def _drop_questions(self, execution_id: str) -> None:
        self._answering.end(execution_id)
        self.call_log.forget(execution_id)

    # --- what executions ask for ---------------------------------------------------------------------

    def flow_control(self) -> FlowControl:
        """Return what stops and restarts the reading of messages."""
        return self._connection()

    def _served(self, question: Question, what: str) -> Served:
        """Return what the context of an answer is to know of a question of this session's code."""
        execution = self.find(question.execution_id)
        before = None if execution is None else execution.submitted_for
        what = f"{what}, which answers {question_id(question)!r}"
        return Served(self, question.execution_id, what, before, question_id(question))

    def _waits_behind_call(self) -> tuple[Served, str] | None:
        """Return the call that the running execution waits for, and the id of the one that is next."""
        first = self.first
        served = None if first is None else self._answering.unanswered(first.execution_id)
        waiting = next(islice(self.running, 1, None), None)
        return None if served is None or waiting is None else (served, waiting)

    def request_cancel(self, execution: ExecutionRecord, reason: CancelReason) -> None:
        """Take the next step towards an execution's end."""
        if execution.done:
            return
        if execution.execution_id in self._executions:
            self._cancellation.cancel(execution, reason)
        elif execution.execution_id in self._waiting:
            behind = self._stopped_with(execution)
            self.end(execution, cancelled_before_start(execution, reason))
            self._stop(behind, execution, "it was cancelled")
            self._pump()

    def _stopped_with(self, execution: ExecutionRecord) -> list[ExecutionRecord]:
        """Return what is not run either if an execution that waits is not."""
        waiting = list(self._waiting.values()) if execution.spec.on_error == "stop_queue" else [execution]
        return waiting[waiting.index(execution) + 1 :]

    def _release_held(self, execution: ExecutionRecord, last: Result | Error) -> None:
        """Go on behind an execution that nothing was sent behind; or end that, if it has failed."""
        self._holding = None
        if isinstance(last, Error):
            self._stop(list(self._waiting.values()), execution, f"{last.exception}: {last.message}"[:200])
        else:
            self._pump()

    def _stop(self, behind: Iterable[ExecutionRecord], failed: ExecutionRecord, how: str) -> None:
        for execution in behind:
            self.end(execution, stopped_behind(execution, failed, how))

    # --- stopping ------------------------------------------------------------------------------------

    def _send_cancel(self, execution: ExecutionRecord, reason: CancelReason) -> None:
        connection = self._connection()
        if execution.execution_id not in self._forcing_reading:
            self._forcing_reading.add(execution.execution_id)
            # A worker that is stuck in a full pipe, since an iteration is slow, could not stop.
            connection.start_forced_reading()
        limit = execution.seconds if reason == "timeout" else None
        connection.send(Cancel(execution_id=execution.execution_id, reason=reason, timeout=limit))
        connection.wake()

    @contextmanager
    def worker_occupied(self) -> Generator[None]:
        """While the worker does something else, the time of executions that are sent does not pass."""
        held = self._cancellation.hold()
        try:
            yield
        finally:
            self._cancellation.release(held)

    def _note_pause(self, execution_id: str) -> None:
        if not self._cancellation.idle:
            self._cancellation.note_pause(execution_id)

    def _kill_worker(self, reason: str) -> None:
        self._connection().kill(reason)

    def _give_up(self, execution: ExecutionRecord, reason: CancelReason) -> None:
        if not execution.done:
            execution.mark_done()
            self._delivery.add(
                partial(self._on_outcome, execution, cancelled_before_start(execution, reason), True)
            )

    # --- routes --------------------------------------------------------------------------------------

    def _answer(self, message: CallResponse | InputResponse) -> None:
        self._connection().send_answer(message)

    def on_captured(self, stream: StreamName, text: str, size: int) -> None:
        """Take text that came past Python: it belongs to what runs now."""
        self._output.captured(self.first, stream, text, size)

    def _route_output(self, message: Output) -> None:
        execution = None
        if not message.late and message.execution_id is not None:
            execution = self._executions.get(message.execution_id)
        self._output.deliver(execution, message)

    def _route_rest(self, message: OutputRest) -> None:
        execution = self._executions.get(message.execution_id)
        if execution is not None:
            self._output.rest(execution, message)

    def _route_display(self, message: Display) -> None:
        execution = None
        if not message.late and message.execution_id is not None:
            execution = self._executions.get(message.execution_id)
        self._output.deliver_display(execution, message)

    def _route_question(self, message: Input | Call) -> None:
        execution = self._executions.get(message.execution_id)
        if execution is not None and not self.call_log.knows(message):
            self._accept(execution, message)
        self._delivery.add(partial(self._serve, execution, message), size_of(message))

    def _serve(self, execution: ExecutionRecord | None, message: Input | Call) -> None:
        late = message.execution_id not in self._executions
        if late and self.find(message.execution_id) is not None:
            return  # its worker is gone, and it runs again
        if late:
            self.call_log.expect_late(message.execution_id)
        if isinstance(message, Call):
            self.calls.serve(message)
        else:
            # A task or thread that an execution has left behind asks the running execution's handler.
            asked = execution or self.first
            self._prompts.ask(message, (None if asked is None else asked.handlers.on_input) or self._on_input)

    def _route_abandoned(self, message: Abandoned) -> None:
        self._delivery.add(partial(self._answering.abandon, message.execution_id, message.call_id))

    def _accept(self, execution: ExecutionRecord, message: Event) -> None:
        if not execution.is_replay:
            self._delivery.add(partial(execution.add_event, message), size_of(message))

    def _route_last(self, message: Result | Error) -> None:
        execution_id = message.execution_id or ""
        execution = self._executions.get(execution_id)
        if execution is None:
            return  # its worker was told to end, and has not ended yet
        self._take_last(execution, message)
        if self._holding is execution:
            self._release_held(execution, message)

    def _take_last(self, execution: ExecutionRecord, message: Result | Error) -> None:
        execution_id = execution.execution_id
        self._output.finish(execution)
        del self._executions[execution_id]
        for first in self._executions.values():
            if first.state is _QUEUED:
                first.begin()
            break
        # One that was being cancelled too, however it ended: if it was run again, nothing would stop it.
        final = execution.state is _CANCELLING or must_not_rerun(message)
        if not self._cancellation.idle:
            self._cancellation.forget(execution)
            self._cancellation.advance()
            if execution_id in self._forcing_reading:
                self._forcing_reading.discard(execution_id)
                self._connection().stop_forced_reading()
        # What the code still waits for, in a task or a thread or with a later cell, goes on as late.
        self.call_log.forget(execution_id)
        if execution.state is _FINISHED:
            return  # given up before its turn came
        execution.mark_done()
        if execution.is_replay:
            execution.finish(message)
        elif self._delivery.busy:
            self.ending[execution_id] = final
            self._delivery.add(partial(self._on_outcome, execution, message, final), MESSAGE_BYTES)
        else:
            self._on_outcome(execution, message, final)


def _message(execution: ExecutionRecord) -> Execute:
    spec = execution.spec
    return Execute(
        execution_id=execution.execution_id,
        code=spec.code,
        result_mode=spec.result_mode,
        replay=execution.is_replay,
        store_history=spec.store_history,
        filename=spec.filename,
        first_line=spec.first_line,
    )
