"""The dispatcher of output and displays: to their execution and the handlers, in order and within bounds."""

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from pyrepl3_client._concurrency.carried_error import carried
from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.backpressure import MESSAGE_BYTES, OrderedDelivery
from pyrepl3_client._execution.event_log import size_of
from pyrepl3_client._execution.handlers import DisplayHandler, Handlers, OutputHandler
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._execution.serving import Served, serve_here, until_served
from pyrepl3_client.errors import ProtocolError
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.head_tail import HeadTail
from pyrepl3_schemas.messages import Display, Output, StreamName

_MARKS_BYTES: Final = 64 * 1024
"""What a worker may add where it has cut output."""


class OutputDispatcher:
    """Hands one session's output to its executions and handlers."""

    def __init__(
        self,
        task_owner: TaskOwner,
        delivery: OrderedDelivery,
        handlers: Handlers,
        config: ExecutorConfig,
        owner: object,
    ) -> None:
        """Hand over by `delivery`, to the handlers too.

        Args:
            task_owner: runs what handlers return; its loop's exception handler gets a failure outside any
                execution.
            delivery: keeps the order where a handler has to be awaited.
            handlers: the session's own.
            config: has the bounds; that of output includes what was captured.
            owner: stands for the session, which must not wait for itself.
        """
        self._task_owner = task_owner
        self._delivery = delivery
        self._on_output = handlers.on_output
        self._on_display = handlers.on_display
        self._max_bytes = max_bytes = config.max_output_bytes
        self._max_display_bytes = config.max_display_bytes
        self._owner = owner
        # The worker keeps what it prints within the bound, we what comes past Python.
        self._most = float("inf") if max_bytes is None else 2 * max_bytes + _MARKS_BYTES
        self._bounds: dict[str, HeadTail[StreamName]] = {}
        self.replaying = False
        """Whether a namespace is being brought back: what that writes has been seen."""

    def captured(self, execution: ExecutionRecord | None, stream: StreamName, text: str, size: int) -> None:
        """Take text that came past Python, of `size` bytes, while `execution` ran."""
        if execution is None:
            self.deliver(None, Output(stream=stream, data=text))
            return
        if self._max_bytes is not None:
            bound = self._bounds.get(execution.execution_id)
            if bound is None:
                bound = self._bounds[execution.execution_id] = HeadTail(self._max_bytes)
            text = bound.add(stream, text, size, execution.output_bytes)
            if not text:
                return
        self.deliver(execution, Output(stream=stream, data=text, execution_id=execution.execution_id))

    def deliver(self, execution: ExecutionRecord | None, message: Output) -> None:
        """Hand output over now, or when its turn comes.

        Raises:
            ProtocolError: the worker does not keep the bound.
        """
        if self.replaying and (execution is None or execution.is_replay):
            return
        if execution is not None:
            data = message.data
            execution.output_bytes += len(data) if data.isascii() else len(data.encode())
            if execution.output_bytes > self._most:
                raise ProtocolError(
                    f"it sent {execution.output_bytes:,} bytes of output of execution "
                    f"{execution.execution_id!r}, past max_output_bytes={self._max_bytes}"
                )
        if self._delivery.busy:
            size = len(message.data) + MESSAGE_BYTES
            self._delivery.add(partial(self._hand_over, execution, message), size)
        else:
            awaitable = self._hand_over(execution, message)
            if awaitable is not None:
                self._delivery.wait_for(awaitable)

    def deliver_display(self, execution: ExecutionRecord | None, message: Display) -> None:
        """Hand a display over now, or when its turn comes."""
        if self.replaying and (execution is None or execution.is_replay):
            return
        self._delivery.add(partial(self._hand_over_display, execution, message), size_of(message))

    def finish(self, execution: ExecutionRecord) -> None:
        """Deliver the tail of what was captured of an execution that has ended."""
        bound = self._bounds.pop(execution.execution_id, None) if self._bounds else None
        if bound is None:
            return
        parts = bound.finish()
        execution.truncated = execution.truncated or bound.missing > 0
        for stream, text in parts:
            self.deliver(execution, Output(stream=stream, data=text, execution_id=execution.execution_id))

    def clear(self) -> None:
        """Drop what was captured of a worker that is gone."""
        self._bounds.clear()

    def _hand_over(self, execution: ExecutionRecord | None, message: Output) -> Awaitable[None] | None:
        """Hand output to its execution and the handlers; return what to await before the next output."""
        own: OutputHandler | None = None
        if execution is not None:
            unseen = execution.add_output(message)
            if unseen is None:
                return None
            message = unseen
            own = execution.handlers.on_output
        if self._on_output is None and own is None:
            return None
        return self._call("on_output", (self._on_output, own), execution, message)

    def _hand_over_display(
        self, execution: ExecutionRecord | None, message: Display
    ) -> Awaitable[None] | None:
        """Hand a display to its execution and the handlers, as output."""
        own: DisplayHandler | None = None
        if execution is not None:
            if execution.is_replay:
                return None
            unseen = execution.add_display(message, self._max_display_bytes)
            if unseen is None:
                return None
            message = unseen
            own = execution.handlers.on_display
        return self._call("on_display", (self._on_display, own), execution, message)

    def _call[Message: (Output, Display)](
        self,
        name: str,
        handlers: tuple[Callable[[Message], Awaitable[None] | None] | None, ...],
        execution: ExecutionRecord | None,
        message: Message,
    ) -> Awaitable[None] | None:
        waits: list[Awaitable[None]] = []
        for handler in handlers:
            if handler is None:
                continue
            try:
                awaitable = handler(message)
            except BaseException as error:
                self._report_error(name, execution, carried(error, name))
                if (
                    isinstance(error, KeyboardInterrupt | SystemExit)
                    and threading.current_thread() is threading.main_thread()
                ):
                    # Perhaps Ctrl-C itself, and in any case for the program whose loop this is; in a thread
                    # it would end a loop that others wait for.
                    raise
            else:
                if awaitable is not None:
                    waits.append(awaitable)
        return self._await_handlers(name, execution, waits) if waits else None

    async def _await_handlers(
        self, name: str, execution: ExecutionRecord | None, waits: list[Awaitable[None]]
    ) -> None:
        for awaitable in waits:
            before = None if execution is None else execution.submitted_for
            served = Served(self._owner, "", f"its {name} handler", before)
            serve_here(served)
            try:
                await self._task_owner.run_apart(name, until_served(awaitable))
            except Exception as error:  # noqa: BLE001 - it is reported to the handler's owner
                self._report_error(name, execution, error)
            finally:
                served.ended = True

    def _report_error(self, name: str, execution: ExecutionRecord | None, error: Exception) -> None:
        if execution is not None:
            error.add_note(f"raised by {name} while execution {execution.execution_id!r} ran")
            execution.set_callback_error(error)
        else:
            self._task_owner.loop.call_exception_handler(
                {"message": f"{name} failed for output outside any execution", "exception": error}
            )
