"""The tasks that answer the host calls and the prompts of the session's code."""

import asyncio
from collections.abc import Awaitable, Callable

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.backpressure import FlowControl, PendingCallLimit
from pyrepl3_client._execution.call_log import CallLog, Question, Response, question_id
from pyrepl3_client._execution.event_log import size_of
from pyrepl3_client._execution.serving import Served, serve_here
from pyrepl3_client.errors import StoreError


class AnsweringTasks:
    """Answers each question in a task of its own, until its execution is over."""

    def __init__(
        self,
        task_owner: TaskOwner,
        call_log: CallLog,
        on_failure: Callable[[str, StoreError], None],
        flow_control: Callable[[], FlowControl],
        served: Callable[[Question, str], Served],
        on_wait: Callable[[], None],
    ) -> None:
        """Start without questions.

        Args:
            task_owner: owns the tasks.
            call_log: records questions and answers, and sends the answers.
            on_failure: gets the execution whose question could not be recorded, and why.
            flow_control: returns what stops the reading of messages while too many questions are open.
            served: makes what the context of the answer knows of a question; gets what answers it, in words.
            on_wait: called when an answer takes its time.
        """
        self._task_owner = task_owner
        self._call_log = call_log
        self._on_failure = on_failure
        self._limit = PendingCallLimit(flow_control)
        self._served = served
        self._on_wait = on_wait
        self._tasks: dict[str, dict[asyncio.Task[None], Served]] = {}

    def start[Q: Question](
        self,
        question: Q,
        answer: Callable[[Q, int], Awaitable[Response]],
        failure: Callable[[Q, BaseException], Response],
        name: str,
        *,
        repeatable: bool,
    ) -> None:
        """Begin to answer a question.

        Args:
            question: the worker's call or prompt.
            answer: makes the answer; gets the question and the number of the attempt, from 1.
            failure: makes an answer of what `answer` raised.
            name: the task's name.
            repeatable: whether `answer` may be called again when an earlier call's outcome is not known.
        """
        served = self._served(question, name)
        task = self._task_owner.start(
            self._run(question, served, answer, failure, repeatable=repeatable), name
        )
        if not task.done():
            tasks = self._tasks.setdefault(question.execution_id, {})
            tasks[task] = served
            task.add_done_callback(lambda task: tasks.pop(task, None))
            self._limit.add(task, size_of(question))
            self._on_wait()

    @property
    def busy(self) -> bool:
        """Whether an answer may be under way; False is certain."""
        return bool(self._tasks)

    def unanswered(self, execution_id: str) -> Served | None:
        """Return the oldest question of an execution that has no answer."""
        return next(
            (served for served in self._tasks.get(execution_id, {}).values() if not served.ended), None
        )

    def end(self, execution_id: str) -> None:
        """Cancel what is being answered for an execution that is over: its worker waits for no answer."""
        if self._tasks:
            for task, served in list(self._tasks.pop(execution_id, {}).items()):
                served.ended = True
                task.cancel()

    async def _run[Q: Question](
        self,
        question: Q,
        served: Served,
        answer: Callable[[Q, int], Awaitable[Response]],
        failure: Callable[[Q, BaseException], Response],
        *,
        repeatable: bool,
    ) -> None:
        serve_here(served)
        try:
            await self._call_log.answer(
                question, lambda attempt: self._ask(question, answer, failure, attempt), repeatable=repeatable
            )
        except StoreError as error:
            self._on_failure(question.execution_id, error)
        except asyncio.CancelledError:
            if not self._is_over(question):
                self._on_failure(question.execution_id, _not_answered(question, "it was cancelled"))
            raise
        except Exception as error:
            self._on_failure(question.execution_id, _not_answered(question, repr(error)))
            raise
        finally:
            served.ended = True

    async def _ask[Q: Question](
        self,
        question: Q,
        answer: Callable[[Q, int], Awaitable[Response]],
        failure: Callable[[Q, BaseException], Response],
        attempt: int,
    ) -> Response:
        try:
            return await answer(question, attempt)
        except asyncio.CancelledError as error:
            if self._is_over(question):
                raise
            # By something that cancels tasks which are not its own: the code waits all the same.
            return failure(question, error)
        except Exception as error:  # noqa: BLE001 - whatever a host function or handler raises is raised in the code
            return failure(question, error)

    def _is_over(self, question: Question) -> bool:
        """Return whether nobody waits for the answer that the current task makes."""
        return self._task_owner.closed or asyncio.current_task() not in self._tasks.get(
            question.execution_id, ()
        )


def _not_answered(question: Question, why: str) -> StoreError:
    return StoreError(f"{question_id(question)!r} could not be answered: {why}")


def text_of(error: BaseException) -> str:
    """Return an exception's message, or a text in its place when its `__str__` fails."""
    if type(error) is KeyError and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]  # its text is the key's repr, and the worker makes a KeyError of it again
    try:
        return str.__str__(str(error))  # not an instance of a subclass, whose methods are its own
    except BaseException:  # noqa: BLE001 - a broken __str__ is not worth losing the call for
        return f"<{type(error).__name__} whose text cannot be had>"


def encodable(text: str) -> str:
    """Return a text with lone surrogates escaped, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
