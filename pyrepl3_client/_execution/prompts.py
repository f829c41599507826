"""The prompts of the session's code, as input handlers get them, and how they are answered."""

import inspect

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.answering import AnsweringTasks, encodable, text_of
from pyrepl3_client._execution.handlers import InputHandler
from pyrepl3_client._execution.serving import until_served
from pyrepl3_schemas.messages import Input, InputResponse


class Prompt(str):
    """A prompt as an input handler gets it: a string, with what is known of it as attributes."""

    __slots__ = ("execution_id", "input_id", "password")

    execution_id: str
    """The execution whose code asks."""
    input_id: str
    """The same for each attempt at the prompt."""
    password: bool
    """Whether the answer is not to be shown while it is typed."""

    @classmethod
    def of(cls, message: Input) -> "Prompt":
        """Make a prompt.

        Args:
            message: the worker's message.

        Returns:
            The prompt's text, with the message's ids.
        """
        prompt = cls(message.prompt)
        prompt.execution_id = message.execution_id
        prompt.input_id = message.input_id
        prompt.password = message.password
        return prompt


class Prompts:
    """Has the prompts of one session's code answered."""

    def __init__(self, task_owner: TaskOwner, tasks: AnsweringTasks) -> None:
        """Answer in `tasks`; run plain handlers in threads of `task_owner`."""
        self._task_owner = task_owner
        self._tasks = tasks

    def ask(self, message: Input, handler: InputHandler | None) -> None:
        """Have `handler` answer; without a handler the answer is the end of input."""
        # A prompt without an answer may be shown again: a person is asked, nothing is done.
        self._tasks.start(
            message,
            lambda message, _: self._answer(message, handler),
            _failure,
            "on_input",
            repeatable=True,
            pauses=True,
        )

    async def _answer(self, message: Input, handler: InputHandler | None) -> InputResponse:
        if handler is None:
            return InputResponse(input_id=message.input_id, eof=True)
        prompt = Prompt.of(message)
        if inspect.iscoroutinefunction(handler):
            answer = await self._task_owner.run_apart("on_input", until_served(handler(prompt)))
            return _response(message, answer)
        answer = await self._task_owner.run_in_thread("on_input", lambda: handler(prompt))
        if inspect.isawaitable(answer):
            answer = await self._task_owner.run_apart("on_input", until_served(answer))
        return _response(message, answer)


def _response(message: Input, answer: object) -> InputResponse:
    if answer is None:
        return InputResponse(input_id=message.input_id, eof=True)
    if not isinstance(answer, str):
        raise TypeError(f"on_input gave a {type(answer).__name__}, not a string or None")
    line = answer.removesuffix("\n").encode("utf-8", "replace").decode()
    return InputResponse(input_id=message.input_id, data=line)


def _failure(message: Input, error: BaseException) -> InputResponse:
    return InputResponse(
        input_id=message.input_id, error=encodable(f"{type(error).__name__}: {text_of(error)}")
    )
