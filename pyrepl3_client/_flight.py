"""The executions of a session that are under way, and where each message about them goes."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from pyrepl3_client._bounds import OutputBound
from pyrepl3_client._calls import Calls, Capability
from pyrepl3_client._connection import Connection, Route
from pyrepl3_client._delivery import Delivery, Valve
from pyrepl3_client._events import Event
from pyrepl3_client._execution import Execution, InputHandler, OutputHandler
from pyrepl3_client._inputs import Inputs
from pyrepl3_client._nursery import Nursery
from pyrepl3_client._stopping import Actions, Stopping
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import ExecutionIdConflict, ProtocolError
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import (
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
    Result,
    StreamName,
)

type Capabilities = Mapping[str, Capability | Callable[..., Any]]


class Flight:
    """Executions in the order in which they were submitted, which is the order in which they run."""

    def __init__(
        self,
        config: WorkerConfig,
        nursery: Nursery,
        capabilities: Capabilities,
        on_output: OutputHandler | None,
        on_input: InputHandler | None,
        wire: Callable[[], Connection],
    ) -> None:
        """Send over `wire()`, the connection to the worker that is there now.

        Raises:
            CapabilityError: a capability cannot be offered.
        """
        self._wire = wire
        self._on_output = on_output
        self._on_input = on_input
        self._loop = nursery.loop
        self._max_output = config.executor.max_output_bytes
        self._executions: dict[str, Execution] = {}
        self._bounds: dict[str, OutputBound] = {}
        self._delivery = Delivery(nursery, self.valve)
        self._inputs = Inputs(nursery, self._answer)
        self.calls = Calls(capabilities, nursery, self._answer)
        self._stopping = Stopping(
            Actions(
                self._ask_to_stop, self._give_up, lambda reason: self._wire().end(reason), lambda: self.first
            ),
            config.cancel_grace,
            config.kill_grace,
        )
        self._stopping_urgently: set[str] = set()
        self._forsaken: set[str] = set()

    @property
    def routes(self) -> dict[type[FromWorker], Route]:
        """Where the messages go that are about executions."""
        return {
            Output: self._route_output,
            Display: self._route_event,
            Input: self._route_input,
            Call: self._route_call,
            Result: self._route_last,
        }

    @property
    def first(self) -> Execution | None:
        """The execution that runs: the oldest one without a last message."""
        return next(iter(self._executions.values()), None)

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of what is under way, the running one first."""
        return tuple(self._executions)

    def busy(self) -> str:
        """Say in words what the worker is doing; empty when that is nothing."""
        first = self.first
        return "" if first is None else f"running {first.execution_id!r}"

    def submit(self, execution: Execution, message: Execute, seconds: float | None) -> None:
        """Send an execution; `seconds` is its deadline.

        Raises:
            ExecutionIdConflict: its id is in flight.
            ProtocolError: its code cannot be sent.
        """
        if execution.execution_id in self._executions:
            raise ExecutionIdConflict(f"execution id {execution.execution_id!r} is in flight in this session")
        connection = self._wire()
        frame = connection.encode(message)
        if self._executions:
            # The worker is busy with another: what is submitted in one turn of the loop goes in one write.
            connection.outbox.put(frame)
        else:
            connection.outbox.write(frame)
        self._executions[execution.execution_id] = execution
        if seconds is not None:
            self._stopping.watch(execution, seconds)

    def fail_all(self, error: Callable[[], BaseException]) -> None:
        """There is no worker any more: every execution in flight ends with an error of its own."""
        self.calls.end_all()
        self._inputs.end_all()
        self._stopping_urgently.clear()
        # A worker that is only about to end may still say how they ended.
        self._forsaken = set(self._executions)
        for execution in list(self._executions.values()):
            del self._executions[execution.execution_id]
            self._stopping.over(execution)
            failure = error()
            execution.mark_over()
            self._delivery.add(partial(execution.fail, failure))
        self._bounds.clear()

    async def close(self, grace: float) -> None:
        """Wait for output handlers, at most `grace` seconds."""
        await self._delivery.close(grace)

    # --- what executions ask of us -------------------------------------------------------------------

    def valve(self) -> Valve:
        """Give what stops and restarts the reading of messages."""
        return self._wire()

    def state_of(self, execution: Execution) -> ExecutionState:
        """Say where an execution stands that is not over."""
        if self._stopping.is_stopping(execution):
            return ExecutionState.CANCELLING
        return ExecutionState.RUNNING if self.first is execution else ExecutionState.QUEUED

    def request_cancel(self, execution: Execution, reason: CancelReason) -> None:
        """Take the next step towards an execution's end."""
        if not execution.over and execution.execution_id in self._executions:
            self._stopping.stop(execution, reason)

    # --- stopping ------------------------------------------------------------------------------------

    def _ask_to_stop(self, execution: Execution, reason: CancelReason) -> None:
        connection = self._wire()
        if execution.execution_id not in self._stopping_urgently:
            self._stopping_urgently.add(execution.execution_id)
            # A worker that is stuck in a full pipe, since an iteration is slow, could not stop.
            connection.insist(urgent=True)
        connection.send(Cancel(execution_id=execution.execution_id, reason=reason))
        connection.ring()

    def _give_up(self, execution: Execution, reason: CancelReason) -> None:
        text = f"execution {execution.execution_id!r} was cancelled before it began"
        error = Error(
            kind="timeout" if reason == "timeout" else "cancelled",
            exception="CancellationError",
            message=text,
            traceback=f"CancellationError: {text}",
            execution_id=execution.execution_id,
        )
        if not execution.over:
            execution.mark_over()
            self._delivery.add(partial(execution.finish, error))

    # --- routes --------------------------------------------------------------------------------------

    def _answer(self, message: CallResponse | InputResponse) -> None:
        self._wire().send(message)

    def on_captured(self, stream: StreamName, text: str, size: int) -> None:
        """Take text that came past Python: it belongs to what runs now."""
        execution = self.first
        if execution is None:
            self._deliver(None, Output(stream=stream, data=text))
            return
        if self._max_output is not None:
            bound = self._bounds.get(execution.execution_id)
            if bound is None:
                bound = self._bounds[execution.execution_id] = OutputBound(self._max_output)
            text = bound.admit(stream, text, size, execution.output_bytes)
            if not text:
                return
        self._deliver(execution, Output(stream=stream, data=text, execution_id=execution.execution_id))

    def _route_output(self, message: Output) -> None:
        execution = None
        if not message.late and message.execution_id is not None:
            execution = self._executions.get(message.execution_id)
        self._deliver(execution, message)

    def _deliver(self, execution: Execution | None, message: Output) -> None:
        if execution is not None:
            data = message.data
            execution.output_bytes += len(data) if data.isascii() else len(data.encode())
        if self._delivery.busy:
            self._delivery.add(partial(self._hand_over, execution, message), len(message.data))
        else:
            awaitable = self._hand_over(execution, message)
            if awaitable is not None:
                self._delivery.wait_for(awaitable)

    def _hand_over(self, execution: Execution | None, message: Output) -> Awaitable[None] | None:
        """Give output to those who want it; what is given back is to be awaited before the next."""
        own: OutputHandler | None = None
        if execution is not None:
            execution.accept(message)
            own = execution.on_output
        if self._on_output is None and own is None:
            return None
        waits: list[Awaitable[None]] = []
        for handler in (self._on_output, own):
            if handler is None:
                continue
            try:
                awaitable = handler(message)
            except Exception as error:  # noqa: BLE001 - the handler's owner hears of it
                self._blame(execution, error)
            else:
                if awaitable is not None:
                    waits.append(awaitable)
        return self._await_handlers(execution, waits) if waits else None

    async def _await_handlers(self, execution: Execution | None, waits: list[Awaitable[None]]) -> None:
        for awaitable in waits:
            try:
                await awaitable
            except Exception as error:  # noqa: BLE001 - the handler's owner hears of it
                self._blame(execution, error)

    def _blame(self, execution: Execution | None, error: Exception) -> None:
        if execution is not None:
            error.add_note(f"raised by on_output while execution {execution.execution_id!r} ran")
            execution.blame_callback(error)
        else:
            self._loop.call_exception_handler(
                {"message": "on_output failed for output outside any execution", "exception": error}
            )

    def _route_event(self, message: Display) -> None:
        if message.execution_id is not None:
            self._accept(message.execution_id, message)

    def _route_input(self, message: Input) -> None:
        execution = self._executions.get(message.execution_id)
        self._accept(message.execution_id, message)
        handler = self._on_input if execution is None or execution.on_input is None else execution.on_input
        self._delivery.add(partial(self._inputs.ask, message, handler))

    def _route_call(self, message: Call) -> None:
        self._accept(message.execution_id, message)
        self._delivery.add(partial(self.calls.serve, message))

    def _accept(self, execution_id: str, message: Event) -> None:
        execution = self._executions.get(execution_id)
        if execution is not None:
            self._delivery.add(partial(execution.accept, message))

    def _route_last(self, message: Result | Error) -> None:
        execution_id = message.execution_id or ""
        execution = self._executions.get(execution_id)
        if execution is None:
            if execution_id in self._forsaken:
                return
            raise ProtocolError(f"it ended execution {execution_id!r}, which is not in flight")
        if self._bounds:
            self._deliver_tail(execution)
        del self._executions[execution_id]
        if not self._stopping.idle:
            self._stopping.over(execution)
            self._stopping.advance()
            if execution_id in self._stopping_urgently:
                self._stopping_urgently.discard(execution_id)
                self._wire().insist(urgent=False)
        self.calls.end(execution_id)
        self._inputs.end(execution_id)
        if execution.over:
            return  # given up before its turn came
        execution.mark_over()
        if self._delivery.busy:
            self._delivery.add(partial(execution.finish, message))
        else:
            execution.finish(message)

    def route_error(self, message: Error) -> None:
        """Take the error that ends an execution."""
        self._route_last(message)

    def _deliver_tail(self, execution: Execution) -> None:
        bound = self._bounds.pop(execution.execution_id, None)
        if bound is None:
            return
        parts, cut = bound.finish()
        execution.cut = cut
        for stream, text in parts:
            self._deliver(execution, Output(stream=stream, data=text, execution_id=execution.execution_id))
