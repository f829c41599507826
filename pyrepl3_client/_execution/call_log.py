"""The calls and prompts of the executions under way: each asked once, and answered from the record later.

The intent is recorded before a host function is called, the outcome before the worker sees it. A worker
that runs the code again asks under the same ids: it is served from the record, or waits for the answer
that is still on its way.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

import msgspec

from pyrepl3_client._journal.protocol import CallRecord, Record
from pyrepl3_schemas.messages import Call, CallError, CallResponse, Input, InputResponse
from pyrepl3_schemas.object_limit import has_more_objects, max_objects

type Question = Call | Input
type Response = CallResponse | InputResponse
type Ask = Callable[[int], Awaitable[Response]]
"""Asks the host function or the input handler; the number is that of the attempt, from 1."""

OUTCOME_UNKNOWN: Final = "CapabilityOutcomeUnknown"
DIVERGENCE: Final = "ReplayDivergence"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CallResponse | InputResponse).decode


class _LoggedCall:
    """A question, and how far it has got."""

    __slots__ = ("awaited", "in_progress", "record")

    def __init__(self, record: CallRecord, *, in_progress: bool) -> None:
        self.record = record
        self.in_progress = in_progress
        """Whether it is being answered in this process."""
        self.awaited = False
        """Whether the present worker has asked."""


class _ExecutionCalls:
    """All questions of one execution."""

    __slots__ = ("asked", "closed")

    def __init__(self) -> None:
        self.asked: dict[str, _LoggedCall] = {}
        self.closed = False
        """Whether the record is complete: the execution has ended once."""


class CallLog:
    """The questions of the executions under way."""

    def __init__(
        self,
        record: Record,
        send: Callable[[Response], None],
        diverged: Callable[[str, str], None],
        max_bytes: int,
    ) -> None:
        """Start without questions.

        Args:
            record: what questions and answers are recorded in.
            send: sends an answer to the worker.
            diverged: gets an execution that asks for something else than its record holds, and what.
            max_bytes: most bytes of an answer; a longer one becomes an error, as it could not be sent.
        """
        self._max_bytes = max_bytes
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
        for call_id, call in calls.items():
            questions.asked.setdefault(call_id, _LoggedCall(call, in_progress=False))

    def worker_gone(self) -> None:
        """Note that no worker waits for an answer, until one asks again."""
        for questions in self._executions.values():
            for asked in questions.asked.values():
                asked.awaited = False

    def forget(self, execution_id: str) -> None:
        """Drop the questions of an execution that is over."""
        self._executions.pop(execution_id, None)

    def knows(self, question: Question) -> bool:
        """Return whether a question has been asked before, by another worker."""
        questions = self._executions.get(question.execution_id)
        return questions is not None and question_id(question) in questions.asked

    async def answer(self, question: Question, ask: Ask, *, repeatable: bool) -> None:
        """Answer a question, from the record or by `ask`.

        Raises:
            StoreError: it could not be recorded. It has not been asked, or its answer is lost.
        """
        execution_id, call_id = question.execution_id, question_id(question)
        name, digest = _name(question), _digest(question)
        questions = self._executions.setdefault(execution_id, _ExecutionCalls())
        asked = questions.asked.get(call_id)
        if asked is not None and (asked.record.name, asked.record.digest) != (name, digest):
            was = f"{asked.record.name}(…) with arguments {asked.record.digest[:12]}…"
            self._diverge(question, f"recorded was {was}, now it is {name}(…) with {digest[:12]}…")
        elif asked is None and questions.closed:
            self._diverge(
                question, f"now it is {name}(…) with arguments {digest[:12]}…, recorded was no such call"
            )
        elif asked is None:
            asked = questions.asked[call_id] = _LoggedCall(
                CallRecord(call_id, name, digest), in_progress=True
            )
            asked.awaited = True
            known = await self._record.begin_call(execution_id, asked.record)
            if known is None:
                await self._ask_and_record(execution_id, asked, ask, 1)
                return
            # Its execution was given up since the store had failed, and was asked for once more.
            asked.record, asked.in_progress = known, False
            if asked.awaited:
                await self.answer(question, ask, repeatable=repeatable)
        elif asked.record.outcome is not None:
            self._send(_decode(asked.record.outcome))
        elif asked.in_progress:
            asked.awaited = True
        elif repeatable:
            asked.in_progress = asked.awaited = True
            attempt = await self._record.retry_call(execution_id, call_id)
            await self._ask_and_record(execution_id, asked, ask, attempt)
        else:
            self._send(_unknown(question, name))

    async def _ask_and_record(self, execution_id: str, asked: _LoggedCall, ask: Ask, attempt: int) -> None:
        call_id = asked.record.call_id
        try:
            response = await ask(attempt)
            outcome = _encode(response)
            if len(outcome) > self._max_bytes or has_more_objects(outcome, max_objects(self._max_bytes)):
                response = _too_long(response, len(outcome), self._max_bytes)
                outcome = _encode(response)
            await self._record.finish_call(execution_id, call_id, outcome)
        finally:
            asked.in_progress = False
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
