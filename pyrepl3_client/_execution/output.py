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
from pyrepl3_client._execution.kept_output import RUN_AGAIN, OutputKeeper
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._execution.serving import Served, serve_here, until_served
from pyrepl3_client.errors import ProtocolError
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.head_tail import HeadTail, tail_bytes
from pyrepl3_schemas.messages import Display, Output, OutputRest, StreamName

_LONGEST_CHARACTER: Final = 4
"""Bytes of UTF-8."""
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
        keeper: OutputKeeper,
    ) -> None:
        """Hand over by `delivery`, to the handlers too.

        Args:
            task_owner: runs what handlers return; its loop's exception handler gets a failure outside any
                execution.
            delivery: keeps the order where a handler has to be awaited.
            handlers: the session's own.
            config: has the bounds; that of output includes what was captured.
            owner: stands for the session, which must not wait for itself.
            keeper: keeps what is written past the bound.
        """
        self._task_owner = task_owner
        self._delivery = delivery
        self._on_output = handlers.on_output
        self._on_display = handlers.on_display
        self._max_bytes = max_bytes = config.max_output_bytes
        self._max_display_bytes = config.max_display_bytes
        self._owner = owner
        # The worker keeps what it prints within the bound, or sends what is past its head as the rest; we
        # keep that, and what comes past Python.
        self._most = float("inf") if max_bytes is None else 2 * max_bytes + _MARKS_BYTES
        self._keeper = keeper
        # Where nothing is kept, the worker may keep something back from there on.
        self._partial_from = (
            float("inf")
            if max_bytes is None or keeper.max_bytes
            else max_bytes - tail_bytes(max_bytes) - _LONGEST_CHARACTER + 1
        )
        self._most_rest = keeper.max_bytes + (max_bytes or 0) if keeper.max_bytes else 0
        self._bounds: dict[str, HeadTail[StreamName]] = {}
        self.replaying = False
        """Whether a namespace is being brought back: what that writes has been seen."""

    def captured(self, execution: ExecutionRecord | None, stream: StreamName, text: str, size: int) -> None:
        """Take text that came past Python, of `size` bytes, while `execution` ran."""
        if execution is None:
            self.deliver(None, Output(stream=stream, data=text))
            return
        if self.replaying and execution.is_replay:
            return
        if self._max_bytes is not None:
            text = self._bounded(execution, self._max_bytes, stream, text, size)
            if not text:
                return
        self.deliver(execution, Output(stream=stream, data=text, execution_id=execution.execution_id))

    def rest(self, execution: ExecutionRecord, message: OutputRest) -> None:
        """Take text past the head of an execution's output, of which the tail is delivered at its end.

        Raises:
            ProtocolError: it was not asked for, or not for so much.
        """
        if self.replaying and execution.is_replay:
            return
        text = message.data
        size = len(text) if text.isascii() else len(text.encode())
        execution.rest_bytes += size
        if execution.rest_bytes > self._most_rest or self._max_bytes is None:
            raise ProtocolError(
                f"it sent {execution.rest_bytes:,} bytes of the rest of execution "
                f"{execution.execution_id!r}, past max_spill_bytes={self._keeper.max_bytes}"
            )
        if message.missing:
            self._bound_of(execution, self._max_bytes).leave_out(message.stream, message.missing)
            self._in_turn(partial(self._stop_keeping, execution), 0)
        text = self._bounded(execution, self._max_bytes, message.stream, text, size)
        if text:
            execution_id = execution.execution_id
            self.deliver(execution, Output(stream=message.stream, data=text, execution_id=execution_id))

    def _bound_of(self, execution: ExecutionRecord, max_bytes: int) -> HeadTail[StreamName]:
        bound = self._bounds.get(execution.execution_id)
        if bound is None:
            bound = self._bounds[execution.execution_id] = HeadTail(max_bytes)
        return bound

    def _bounded(
        self, execution: ExecutionRecord, max_bytes: int, stream: StreamName, text: str, size: int
    ) -> str:
        """Return a text that is to be delivered; of one that does not fit, deliver the head, and keep all."""
        bound = self._bound_of(execution, max_bytes)
        head = bound.add(stream, text, size, execution.output_bytes)
        if not self._keeper.max_bytes or len(head) == len(text):
            return head
        if head:
            self.deliver(execution, Output(stream=stream, data=head, execution_id=execution.execution_id))
        rest = text[len(head) :]
        self._in_turn(partial(self._keep, execution, stream, rest), len(rest))
        return ""

    def _in_turn(self, step: Callable[[], None], size: int) -> None:
        """Do something after what was delivered before."""
        if self._delivery.busy:
            self._delivery.add(step, size + MESSAGE_BYTES)
        else:
            step()

    def _keep(self, execution: ExecutionRecord, stream: StreamName, text: str) -> None:
        if execution.kept is None:
            execution.kept = self._keeper.begin(
                execution.execution_id, execution.pieces("stdout"), execution.pieces("stderr")
            )
        execution.kept.add(stream, text)

    def _keep_no_more(self, execution: ExecutionRecord) -> None:
        """Give back the room of a text of which nothing had to be cut in the end."""
        execution.kept = None
        self._keeper.drop(execution.execution_id, "all of it is in the result")

    def _stop_keeping(self, execution: ExecutionRecord) -> None:
        if execution.kept is not None:
            execution.kept.leave_out()

    def deliver(self, execution: ExecutionRecord | None, message: Output, *, is_tail: bool = False) -> None:
        """Hand output over now, or when its turn comes.

        Args:
            execution: whose it is, if it is one's that runs.
            message: the output.
            is_tail: it is a marker, or was kept already.

        Raises:
            ProtocolError: the worker does not keep the bound.
        """
        if self.replaying and (execution is None or execution.is_replay):
            return
        if execution is not None:
            data = message.data
            execution.output_bytes += len(data) if data.isascii() else len(data.encode())
            if execution.output_bytes >= self._partial_from:
                execution.partial = "it has reached its bound, and max_spill_bytes=0 keeps none of the rest"
            if execution.output_bytes > self._most:
                raise ProtocolError(
                    f"it sent {execution.output_bytes:,} bytes of output of execution "
                    f"{execution.execution_id!r}, past max_output_bytes={self._max_bytes}"
                )
        if self._delivery.busy:
            size = len(message.data) + MESSAGE_BYTES
            self._delivery.add(partial(self._hand_over, execution, message, is_tail), size)
        else:
            awaitable = self._hand_over(execution, message, is_tail)
            if awaitable is not None:
                self._delivery.wait_for(awaitable)

    def deliver_display(self, execution: ExecutionRecord | None, message: Display) -> None:
        """Hand a display over now, or when its turn comes."""
        if self.replaying and (execution is None or execution.is_replay):
            return
        self._delivery.add(partial(self._hand_over_display, execution, message), size_of(message))

    def finish(self, execution: ExecutionRecord) -> None:
        """Deliver the tail of the output of an execution that has ended."""
        bound = self._bounds.pop(execution.execution_id, None) if self._bounds else None
        if bound is None:
            if execution.kept is None and not execution.is_replay:
                # What a worker before this one had sent.
                self._keeper.drop(execution.execution_id, RUN_AGAIN)
            return
        parts = bound.finish(self._note)
        execution.truncated = execution.truncated or bound.missing > 0
        for stream, text in parts:
            output = Output(stream=stream, data=text, execution_id=execution.execution_id)
            self.deliver(execution, output, is_tail=True)
        if not bound.missing:
            self._in_turn(partial(self._keep_no_more, execution), 0)

    @property
    def _note(self) -> str:
        return "see output()" if self._keeper.max_bytes else ""

    def interrupted(self, execution: ExecutionRecord) -> None:
        """Let an execution whose worker is gone have the tail of its output, unless some is on its way."""
        bound = self._bounds.pop(execution.execution_id, None) if self._bounds else None
        if bound is None or execution.is_replay:
            return
        parts = bound.finish(self._note)
        execution.truncated = execution.truncated or bound.missing > 0
        if self._delivery.busy:
            execution.truncated = True
            return
        for stream, text in parts:
            # Its handlers may get the same again, from the next worker.
            execution.add_text(stream, text)

    def clear(self) -> None:
        """Drop what is kept back of a worker's output that is gone."""
        self._bounds.clear()

    def _hand_over(
        self,
        execution: ExecutionRecord | None,
        message: Output,
        is_tail: bool = False,  # noqa: FBT001, FBT002 - of a partial
    ) -> Awaitable[None] | None:
        """Hand output to its execution and the handlers; return what to await before the next output."""
        own: OutputHandler | None = None
        if execution is not None:
            if execution.kept is not None and not is_tail:
                execution.kept.add(message.stream, message.data)
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
