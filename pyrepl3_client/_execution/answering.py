"""The tasks that answer the host calls and the prompts of the session's code."""

import asyncio
from collections.abc import Awaitable, Callable

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.backpressure import FlowControl, PendingCallLimit
from pyrepl3_client._execution.call_log import CallLog, Question, Response, Stage, question_id
from pyrepl3_client._execution.event_log import size_of
from pyrepl3_client._execution.serving import Served, serve_here
from pyrepl3_client.errors import StoreError


class _Answering:
    """A question, and the task that answers it."""

    __slots__ = ("on_abandoned", "over", "pauses", "question", "served", "task")

    def __init__(
        self, question: Question, served: Served, on_abandoned: Callable[[], None], *, pauses: bool
    ) -> None:
        self.question = question
        self.pauses = pauses
        """Whether the clock of its execution stands still."""
        self.served = served
        self.on_abandoned = on_abandoned
        self.task: asyncio.Task[None] | None = None
        self.over = False
        """Whether the answer is no longer waited for."""

    def cancel(self) -> None:
        self.over = self.served.ended = True
        self.on_abandoned()
        if self.task is not None:
            self.task.cancel()


class AnsweringTasks:
    """Answers each question in a task of its own, until it is no longer waited for.

    A question may outlive its execution: the code may hold what it will be answered to, for a later cell.
    """

    def __init__(
        self,
        task_owner: TaskOwner,
        call_log: CallLog,
        on_failure: Callable[[str, StoreError], bool],
        flow_control: Callable[[], FlowControl],
        served: Callable[[Question, str], Served],
        on_wait: Callable[[], None],
        on_pause: Callable[[str], None],
    ) -> None:
        """Start without questions.

        Args:
            task_owner: owns the tasks.
            call_log: records questions and answers, and sends the answers.
            on_failure: gets the execution whose question could not be recorded, and why; returns whether it
                ends that execution.
            flow_control: returns what stops the reading of messages while too many questions are open.
            served: makes what the context of the answer knows of a question; gets what answers it, in words.
            on_wait: called when an answer takes its time.
            on_pause: gets an execution whose clock may be to stop, or to go on: see `pauses`.
        """
        self._task_owner = task_owner
        self._call_log = call_log
        self._on_failure = on_failure
        self._limit = PendingCallLimit(flow_control)
        self._served = served
        self._on_wait = on_wait
        self._on_pause = on_pause
        self._answering: dict[str, dict[str, _Answering]] = {}

    def start[Q: Question](
        self,
        question: Q,
        answer: Callable[[Q, int], Awaitable[Response]],
        failure: Callable[[Q, BaseException], Response],
        name: str,
        *,
        repeatable: bool,
        pauses: bool,
        permit: Callable[[Q], Awaitable[None]] | None = None,
        on_abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to answer a question.

        Args:
            question: the worker's call or prompt.
            answer: makes the answer; gets the question and the number of the attempt, from 1.
            failure: makes an answer of what `answer` raised.
            name: the task's name.
            repeatable: whether `answer` may be called again when an earlier call's outcome is not known.
            pauses: whether the clock of its execution stands still until the answer is there.
            permit: waited for before a question is recorded that is not on record; may raise, as `answer`.
                The clock stands still meanwhile.
            on_abandoned: called when the answer is no longer waited for.
        """
        answering = _Answering(question, self._served(question, name), on_abandoned, pauses=pauses)
        task = self._task_owner.start(
            self._run(question, answering, answer, failure, permit, repeatable=repeatable), name
        )
        if not task.done():
            answering.task = task
            of_execution = self._answering.setdefault(question.execution_id, {})
            call_id = question_id(question)
            of_execution[call_id] = answering
            task.add_done_callback(lambda _: self._forget(call_id, answering))
            self._limit.add(task, size_of(question))
            self._on_wait()
            if answering.pauses:
                self._on_pause(question.execution_id)

    def _forget(self, call_id: str, answering: _Answering) -> None:
        execution_id = answering.question.execution_id
        of_execution = self._answering.get(execution_id)
        if of_execution is not None and of_execution.get(call_id) is answering:
            del of_execution[call_id]
            if not of_execution:
                del self._answering[execution_id]
            if answering.pauses:
                self._on_pause(execution_id)

    @property
    def busy(self) -> bool:
        """Whether an answer may be under way; False is certain."""
        return bool(self._answering)

    def pauses(self, execution_id: str) -> bool:
        """Return whether an execution waits for an answer that stops its clock."""
        return any(answering.pauses for answering in self._answering.get(execution_id, {}).values())

    def unanswered(self, execution_id: str) -> Served | None:
        """Return the oldest question of an execution that has no answer."""
        own = self._answering.get(execution_id, {}).values()
        return next((answering.served for answering in own if not answering.served.ended), None)

    def abandon(self, execution_id: str, call_id: str) -> None:
        """Cancel what is being answered to a question that the code has given up, and record that."""
        answering = self._answering.get(execution_id, {}).get(call_id)
        stage = self._call_log.note_abandoned(execution_id, call_id)
        if answering is None or answering.over:
            return
        if stage in ("permitting", "asking"):
            recording = self._record_abandoned(answering.question, stage)
            self._task_owner.start(recording, f"record of {call_id!r}")
            answering.cancel()
        else:
            answering.on_abandoned()

    async def _record_abandoned(self, question: Question, stage: Stage) -> None:
        try:
            await self._call_log.record_abandoned(question, stage)
        except StoreError as error:
            self._on_failure(question.execution_id, error)

    def end(self, execution_id: str) -> None:
        """Cancel what is being answered for an execution: no code waits for it any more."""
        for answering in self._answering.pop(execution_id, {}).values():
            answering.cancel()

    def end_where(self, ends: Callable[[str, str], bool]) -> None:
        """Cancel the answers that are no longer waited for, by execution and id."""
        for execution_id, of_execution in list(self._answering.items()):
            for call_id, answering in list(of_execution.items()):
                if ends(execution_id, call_id):
                    del of_execution[call_id]
                    answering.cancel()
            if not of_execution:
                self._answering.pop(execution_id, None)

    async def _run[Q: Question](
        self,
        question: Q,
        answering: _Answering,
        answer: Callable[[Q, int], Awaitable[Response]],
        failure: Callable[[Q, BaseException], Response],
        permit: Callable[[Q], Awaitable[None]] | None,
        *,
        repeatable: bool,
    ) -> None:
        async def ask(attempt: int) -> Response:
            return await self._guarded(question, answering, failure, answer(question, attempt))

        async def may_ask() -> Response | None:
            if permit is None:
                return None
            pauses, answering.pauses = answering.pauses, True
            self._on_pause(question.execution_id)
            try:
                return await self._guarded(question, answering, failure, permit(question))
            finally:
                answering.pauses = pauses
                self._on_pause(question.execution_id)

        serve_here(answering.served)
        try:
            await self._call_log.answer(
                question, ask, repeatable=repeatable, permit=None if permit is None else may_ask
            )
        except StoreError as error:
            self._fail(question, error, failure)
        except asyncio.CancelledError:
            if not self._is_over(answering):
                self._fail(question, _not_answered(question, "it was cancelled"), failure)
            raise
        except Exception as error:
            self._fail(question, _not_answered(question, repr(error)), failure)
            raise
        finally:
            answering.served.ended = True

    def _fail[Q: Question](
        self, question: Q, error: StoreError, failure: Callable[[Q, BaseException], Response]
    ) -> None:
        """End the execution of a question that could not be recorded; a late one's is told by an answer."""
        if not self._on_failure(question.execution_id, error):
            self._call_log.answer_unrecorded(failure(question, error))

    async def _guarded[Q: Question, T](
        self,
        question: Q,
        answering: _Answering,
        failure: Callable[[Q, BaseException], Response],
        work: Awaitable[T],
    ) -> T | Response:
        try:
            return await work
        except asyncio.CancelledError as error:
            if self._is_over(answering):
                raise
            # By something that cancels tasks which are not its own: the code waits all the same.
            return failure(question, error)
        except Exception as error:  # noqa: BLE001 - whatever a host function or handler raises is raised in the code
            return failure(question, error)

    def _is_over(self, answering: _Answering) -> bool:
        """Return whether the answer is no longer waited for."""
        return self._task_owner.closed or answering.over


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
