"""The calls and prompts of the executions under way: each asked once, and answered from the record later.

The intent is recorded before a host function is called, the outcome before the worker sees it. A worker
that runs the code again asks under the same ids: it is served from the record, or waits for the answer
that is still on its way.
"""

from asyncio import TimerHandle, get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Final, Literal

import msgspec

from pyrepl3_client._journal.protocol import CallRecord, Record
from pyrepl3_client.errors import PyRepl3Error, WorkerDied
from pyrepl3_schemas.messages import Call, CallError, CallResponse, Input, InputResponse
from pyrepl3_schemas.object_limit import has_more_objects, max_objects

type Question = Call | Input
type Response = CallResponse | InputResponse
type Ask = Callable[[int], Awaitable[Response]]
"""Asks the host function or the input handler; the number is that of the attempt, from 1."""
type Permit = Callable[[], Awaitable[Response | None]]
"""Waits until a new question may be asked; gives an answer that stands in the place of asking, or None."""

type Stage = Literal["permitting", "recording", "asking", "done"]
"""How far the answer to a question is: what decides about it is waited for, the record, or who is asked."""

OUTCOME_UNKNOWN: Final = "CapabilityOutcomeUnknown"
DIVERGENCE: Final = "ReplayDivergence"
ABANDONED: Final = "CallAbandoned"
"""Stands in the record for the answer that the code did not wait for; it is never sent."""
_SETTING: Final = "(set)"
"""Stands in the record for the name of what is set before a question is answered; the digest is its id."""
_ABANDON_GRACE_SECONDS: Final = 60.0
"""How much longer than before a replay may take to give the same question up."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CallResponse | InputResponse).decode


class _LoggedCall:
    """A question, and how far it has got."""

    __slots__ = ("abandoned", "asked_at", "awaited", "in_progress", "record", "stage", "timer")

    def __init__(self, record: CallRecord, *, in_progress: bool) -> None:
        self.record = record
        self.in_progress = in_progress
        """Whether it is being answered in this process."""
        self.awaited = False
        """Whether the present worker has asked, and waits."""
        self.abandoned = False
        """Whether the code has given it up."""
        self.asked_at = 0.0
        """When the present worker has asked, in seconds of the loop's clock."""
        self.stage: Stage = "permitting"
        self.timer: TimerHandle | None = None
        """Strikes when a replay still waits for what the code gave up before."""

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _ExecutionCalls:
    """All questions of one execution."""

    __slots__ = ("asked", "closed", "over", "settings")

    def __init__(self) -> None:
        self.asked: dict[str, _LoggedCall] = {}
        self.settings: dict[str, list[bytes]] = {}
        """By question: what has been set while it was answered, as flat bodies."""
        self.closed = False
        """Whether the record is complete: the execution has ended once."""
        self.over = False
        """Whether the execution has ended: what is left here are its late questions."""


class CallLog:
    """The questions of the executions under way."""

    def __init__(
        self,
        record: Record,
        send: Callable[[Response], None],
        diverged: Callable[[str, str], None],
        max_bytes: int,
        set_values: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """Start without questions.

        Args:
            record: what questions and answers are recorded in.
            send: sends an answer to the worker.
            diverged: gets an execution that asks for something else than its record holds, and what.
            max_bytes: most bytes of an answer; a longer one becomes an error, as it could not be sent.
            set_values: sets variables in the worker, from a flat body.
        """
        self._max_bytes = max_bytes
        self._set_values = set_values
        self._record = record
        self._send = send
        self._diverged = diverged
        self._executions: dict[str, _ExecutionCalls] = {}

    def expect(self, execution_id: str, calls: dict[str, CallRecord], *, closed: bool) -> None:
        """Take over the recorded questions of an execution that is about to be run again.

        Args:
            execution_id: its id.
            calls: what is recorded of them.
            closed: whether it asked nothing else: it has ended.
        """
        questions = self._executions.setdefault(execution_id, _ExecutionCalls())
        questions.closed = closed
        questions.over = False
        questions.settings.clear()
        for call_id, call in calls.items():
            if call.name == _SETTING:
                if call.outcome is not None:
                    questions.settings.setdefault(call.digest, []).append(call.outcome)
                continue
            questions.asked.setdefault(call_id, _LoggedCall(call, in_progress=False))

    def worker_gone(self) -> None:
        """Note that no worker waits for an answer, until one asks again."""
        for questions in self._executions.values():
            for asked in questions.asked.values():
                asked.awaited = False

    def forget(self, execution_id: str) -> None:
        """Drop the questions of an execution that is over, but those that are being answered."""
        questions = self._executions.get(execution_id)
        if questions is not None:
            questions.over = True
            for asked in questions.asked.values():
                asked.stop_timer()
            questions.asked = {key: asked for key, asked in questions.asked.items() if asked.in_progress}
            if not questions.asked:
                del self._executions[execution_id]

    def expect_late(self, execution_id: str) -> None:
        """Take a question of an execution that has ended, as an earlier one of it may be on record."""
        self._executions.setdefault(execution_id, _ExecutionCalls()).over = True

    def knows(self, question: Question) -> bool:
        """Return whether a question has been asked before, by another worker."""
        questions = self._executions.get(question.execution_id)
        return questions is not None and question_id(question) in questions.asked

    def is_awaited(self, execution_id: str, call_id: str) -> bool:
        """Return whether the present worker waits for the answer to a question."""
        questions = self._executions.get(execution_id)
        asked = None if questions is None else questions.asked.get(call_id)
        return asked is not None and asked.awaited

    async def set_values(self, execution_id: str, call_id: str, data: bytes) -> None:
        """Set variables while a question is answered; a worker that asks it again has them set again.

        Args:
            execution_id: whose question it is.
            call_id: the question.
            data: a map of values by name, as a flat body.

        Raises:
            PyRepl3Error: they cannot be set; nothing is on record then.
            StoreError: they are set, and cannot be recorded.
        """
        questions = self._executions.setdefault(execution_id, _ExecutionCalls())
        with suppress(WorkerDied):  # the next one asks again, if anything waits for the answer then
            await self._set_values(data)
        settings = questions.settings.setdefault(call_id, [])
        settings.append(data)
        record = CallRecord(f"{call_id}:{_SETTING}:{len(settings)}", _SETTING, call_id)
        await self._record.begin_call(execution_id, record)
        await self._record.finish_call(execution_id, record.call_id, data)

    def has_set_values(self, execution_id: str, call_id: str) -> bool:
        """Return whether anything has been set while a question was answered."""
        questions = self._executions.get(execution_id)
        return questions is not None and call_id in questions.settings

    async def _set_again(self, question: Question, questions: _ExecutionCalls) -> None:
        for data in questions.settings.get(question_id(question), ()):
            try:
                await self._set_values(data)
            except WorkerDied:
                return
            except PyRepl3Error as error:
                self._diverge(question, f"recorded was what its answer had set, which cannot be set: {error}")

    async def answer(
        self, question: Question, ask: Ask, *, repeatable: bool, permit: Permit | None = None
    ) -> None:
        """Answer a question, from the record or by `ask`.

        Raises:
            StoreError: it could not be recorded. It has not been asked, or its answer is lost.
        """
        execution_id, call_id = question.execution_id, question_id(question)
        name, digest = _name(question), _digest(question)
        questions = self._executions.setdefault(execution_id, _ExecutionCalls())
        asked = questions.asked.get(call_id)
        if call_id in questions.settings:
            await self._set_again(question, questions)
        if asked is not None and (asked.record.name, asked.record.digest) != (name, digest):
            was = f"{asked.record.name}(…) with arguments {asked.record.digest[:12]}…"
            self._diverge(question, f"recorded was {was}, now it is {name}(…) with {digest[:12]}…")
        elif asked is None and questions.closed and not questions.over:
            self._diverge(
                question, f"now it is {name}(…) with arguments {digest[:12]}…, recorded was no such call"
            )
        elif asked is None:
            asked = questions.asked[call_id] = _LoggedCall(
                CallRecord(call_id, name, digest), in_progress=True
            )
            self._note_asked(asked)
            known = await self._begin(execution_id, asked, ask, permit)
            if known is None:
                return
            # Its execution was given up since the store had failed, and was asked for once more.
            asked.record, asked.in_progress = known, False
            if asked.awaited:
                await self.answer(question, ask, repeatable=repeatable)
        elif asked.record.outcome is not None:
            self._answer_from_record(question, asked)
        elif asked.in_progress:
            self._note_asked(asked)
        elif repeatable:
            asked.in_progress = True
            asked.stage = "recording"
            self._note_asked(asked)
            attempt = await self._record.retry_call(execution_id, call_id)
            await self._ask_and_record(execution_id, asked, ask, attempt)
        else:
            self._send(_unknown(question, name))

    def _note_asked(self, asked: _LoggedCall) -> None:
        asked.awaited = True
        asked.asked_at = get_running_loop().time()

    async def _begin(
        self, execution_id: str, asked: _LoggedCall, ask: Ask, permit: Permit | None
    ) -> CallRecord | None:
        """Record a new question, ask it and record the answer; return what was on record, if anything was.

        What decides whether it may be asked does so before anything is recorded. So if this program ends
        meanwhile, the question is new once more in the next one, and that decides again.
        """
        try:
            refused = None if permit is None else await permit()
            asked.stage = "recording"
            known = await self._record.begin_call(execution_id, asked.record)
        except BaseException:
            asked.in_progress = False
            self._drop_late(execution_id, asked)
            raise
        if known is not None:
            return known

        async def refuse(_: int) -> Response:
            assert refused is not None
            return refused

        await self._ask_and_record(execution_id, asked, ask if refused is None else refuse, 1)
        return None

    def _answer_from_record(self, question: Question, asked: _LoggedCall) -> None:
        assert asked.record.outcome is not None
        response = _decode(asked.record.outcome)
        if not (isinstance(response, CallResponse) and _is_abandoned(response)):
            self._send(response)
            return
        # The code gave it up, and does so again: an answer now would lead it another way.
        self._note_asked(asked)
        assert response.error is not None
        seconds = float(response.error.notes[0]) * 2 + _ABANDON_GRACE_SECONDS
        asked.stop_timer()
        asked.timer = get_running_loop().call_later(seconds, self._require_abandoned, question, asked)

    def _require_abandoned(self, question: Question, asked: _LoggedCall) -> None:
        questions = self._executions.get(question.execution_id)
        if asked.awaited and questions is not None and questions.asked.get(question_id(question)) is asked:
            self._diverge(question, "recorded was that the code gave it up, and now it waits for it")

    def note_abandoned(self, execution_id: str, call_id: str) -> Stage:
        """Note that the code has given a question up; return how far its answer is.

        While that is `recording`, it must not be cancelled: what is on record would not be known.
        """
        questions = self._executions.get(execution_id)
        asked = None if questions is None else questions.asked.get(call_id)
        if asked is None:
            return "done"
        asked.awaited = False
        asked.stop_timer()
        asked.abandoned = asked.stage != "done" and asked.in_progress
        return asked.stage

    async def record_abandoned(self, question: Question, stage: Stage) -> None:
        """Record that the code has given a question up, in the place of an answer.

        Raises:
            StoreError: it could not be recorded.
        """
        questions = self._executions.get(question.execution_id)
        asked = None if questions is None else questions.asked.get(question_id(question))
        if asked is None:
            return
        if stage == "permitting":
            await self._record.begin_call(question.execution_id, asked.record)
        await self._finish_abandoned(question.execution_id, asked)

    async def _finish_abandoned(self, execution_id: str, asked: _LoggedCall) -> None:
        seconds = get_running_loop().time() - asked.asked_at
        text = f"the code gave it up after {seconds:.3f} s, without an answer"
        given_up = CallError(ABANDONED, text, [f"{seconds:.3f}"])
        outcome = _encode(CallResponse(call_id=asked.record.call_id, error=given_up))
        asked.record = msgspec.structs.replace(asked.record, outcome=outcome)
        await self._record.finish_call(execution_id, asked.record.call_id, outcome)

    def answer_unrecorded(self, response: Response) -> None:
        """Send an answer that is not on record, nor its question."""
        self._send(response)

    def _drop_late(self, execution_id: str, asked: _LoggedCall) -> None:
        """Forget a question of an execution that has ended, since it is answered."""
        questions = self._executions.get(execution_id)
        if questions is not None and questions.over:
            questions.asked.pop(asked.record.call_id, None)
            if not questions.asked:
                del self._executions[execution_id]

    async def _ask_and_record(self, execution_id: str, asked: _LoggedCall, ask: Ask, attempt: int) -> None:
        call_id = asked.record.call_id
        try:
            if asked.abandoned:
                # While its intent was being recorded: it has not been asked.
                await self._finish_abandoned(execution_id, asked)
                return
            asked.stage = "asking"
            response = await ask(attempt)
            if asked.abandoned:
                return
            asked.stage = "done"
            outcome = _encode(response)
            if len(outcome) > self._max_bytes or has_more_objects(outcome, max_objects(self._max_bytes)):
                response = _too_long(response, len(outcome), self._max_bytes)
                outcome = _encode(response)
            await self._record.finish_call(execution_id, call_id, outcome)
        finally:
            asked.in_progress = False
            self._drop_late(execution_id, asked)
        asked.record = msgspec.structs.replace(asked.record, outcome=outcome, attempt=attempt)
        if asked.awaited:
            self._send(response)

    def _diverge(self, question: Question, how: str) -> None:
        text = (
            f"execution {question.execution_id!r} went another way when it was run again: at "
            f"{question_id(question)!r} {how}"
        )
        self._diverged(question.execution_id, text)
        if isinstance(question, Call):
            self._send(CallResponse(call_id=question.call_id, error=CallError(DIVERGENCE, text)))
        else:
            self._send(InputResponse(input_id=question.input_id, error=text))


def _is_abandoned(response: CallResponse) -> bool:
    return response.error is not None and response.error.exception == ABANDONED


def question_id(question: Question) -> str:
    """Return the id of a question, which is its place in the code."""
    return question.call_id if isinstance(question, Call) else question.input_id


def _name(question: Question) -> str:
    return question.capability if isinstance(question, Call) else "input"


def _digest(question: Question) -> str:
    if isinstance(question, Input):
        return sha256(question.prompt.encode()).hexdigest()
    digest = sha256(question.args)
    digest.update(question.kwargs)
    return digest.hexdigest()


def _too_long(response: Response, size: int, most: int) -> Response:
    text = (
        f"the answer takes {size:,} bytes, with more bytes or parts than a frame can hold "
        f"(max_frame_bytes={most:,}, and at most {max_objects(most):,} arrays, maps and texts)"
    )
    if isinstance(response, CallResponse):
        return CallResponse(call_id=response.call_id, error=CallError("CapabilityError", text))
    return InputResponse(input_id=response.input_id, error=text)


def _unknown(question: Question, name: str) -> Response:
    text = (
        f"it is not known whether {name}() did its work: the process that had called it ended before the "
        f"outcome was recorded (call {question_id(question)!r}); offer it with capability(fn, "
        "repeatable=True) if it may be called again"
    )
    if isinstance(question, Call):
        return CallResponse(call_id=question.call_id, error=CallError(OUTCOME_UNKNOWN, text))
    return InputResponse(input_id=question.input_id, error=text)
