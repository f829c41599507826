"""Prompts of the session's code: asked, answered, withdrawn."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.backpressure import FlowControl, PendingCallLimit
from pyrepl3_client._execution.call_log import CallLog
from pyrepl3_client._execution.event_log import size_of
from pyrepl3_client._execution.handlers import InputHandler
from pyrepl3_client._execution.host_calls import is_cancelled, text_of
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.messages import Input, InputResponse


class Prompt(str):
    """A prompt as an input handler gets it: a string that knows more."""

    __slots__ = ("execution_id", "input_id", "password")

    execution_id: str
    input_id: str
    password: bool
    """Whether the answer should not be shown."""

    @classmethod
    def of(cls, message: Input) -> "Prompt":
        """Make it from the worker's message."""
        prompt = cls(message.prompt)
        prompt.execution_id = message.execution_id
        prompt.input_id = message.input_id
        prompt.password = message.password
        return prompt


class Prompts:
    """Has the prompts of one session's code answered."""

    def __init__(
        self,
        task_owner: TaskOwner,
        recorded: CallLog,
        on_failure: Callable[[str, StoreError], None],
        flow_control: Callable[[], FlowControl],
    ) -> None:
        """Answer by way of `recorded`; `on_failure` gets the execution whose prompt could not be recorded.

        `valve()` is closed while too many prompts are open.
        """
        self._task_owner = task_owner
        self._recorded = recorded
        self._on_failure = on_failure
        self._limit = PendingCallLimit(flow_control)
        self._running: dict[str, set[asyncio.Task[None]]] = {}

    def ask(self, message: Input, handler: InputHandler | None) -> None:
        """Have `handler` answer; without one it is the end of input."""
        task = self._task_owner.start(self._serve(message, handler), "on_input")
        if not task.done():
            running = self._running.setdefault(message.execution_id, set())
            running.add(task)
            task.add_done_callback(running.discard)
            self._limit.add(task, size_of(message))

    def end(self, execution_id: str) -> None:
        """Withdraw the prompts of an execution that is over; a late answer is dropped."""
        if self._running:
            for task in self._running.pop(execution_id, ()):
                task.cancel()

    async def _serve(self, message: Input, handler: InputHandler | None) -> None:
        try:
            # A question that nobody has answered may be put again: a person is asked, nothing is done.
            await self._recorded.answer(message, lambda _: self._ask(message, handler), repeatable=True)
        except StoreError as error:
            self._on_failure(message.execution_id, error)

    async def _ask(self, message: Input, handler: InputHandler | None) -> InputResponse:
        if handler is None:
            return InputResponse(input_id=message.input_id, eof=True)
        try:
            return _response(message, await self._answer(Prompt.of(message), handler))
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            return _failure(message, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is for the code to hear
            return _failure(message, error)

    async def _answer(self, prompt: Prompt, handler: InputHandler) -> Any:
        if inspect.iscoroutinefunction(handler):
            return await handler(prompt)
        answer = await self._task_owner.run_in_thread("on_input", lambda: handler(prompt))
        if inspect.isawaitable(answer):
            return await answer
        return answer


def _response(message: Input, answer: object) -> InputResponse:
    if answer is None:
        return InputResponse(input_id=message.input_id, eof=True)
    if not isinstance(answer, str):
        raise TypeError(f"on_input gave a {type(answer).__name__}, not a string or None")
    line = answer.removesuffix("\n").encode("utf-8", "replace").decode()
    return InputResponse(input_id=message.input_id, data=line)


def _failure(message: Input, error: BaseException) -> InputResponse:
    text = f"{type(error).__name__}: {text_of(error)}".encode("utf-8", "backslashreplace").decode()
    return InputResponse(input_id=message.input_id, error=text)
