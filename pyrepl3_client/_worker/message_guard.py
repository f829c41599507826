"""The check of what a worker sends about executions, and when. A worker that breaks the rules is killed.

It runs code that is not trusted, so nothing that it sends is believed. Sizes and types are checked where
bytes become messages; here it is order, ids and counts. Behind this no room checks again.

One thing only looks like a violation: a thread of the code may write or show something at the moment in
which its execution ends, and its message come after the last one. Such a late message is dropped. Calls and
prompts of tasks and threads that outlive their execution are in order.
"""

from typing import Final

import msgspec

from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._text import quoted
from pyrepl3_client._wire.connection import Route
from pyrepl3_client.errors import ProtocolError
from pyrepl3_schemas.messages import (
    Abandoned,
    Call,
    Display,
    Error,
    FromWorker,
    Input,
    Output,
    OutputRest,
    Result,
)

_REMEMBERED: Final = 64
"""Executions that have ended last, from which late messages may come."""
_DIGITS: Final = "0123456789"
_MAX_LATE_MESSAGES: Final = 1000
"""Late messages between two ends of executions; more than a program has threads then are a violation."""
_QUESTION_BYTES: Final = 512
"""What the record of one call or prompt takes, about, beside its id."""
_MAX_QUESTION_BYTES: Final = 512 * 1024 * 1024
"""What the records of one execution's calls and prompts may take: a million of them."""


class MessageGuard:
    """Checks one worker's messages on their way to the executions of its session."""

    def __init__(self, queue: ExecutionQueue) -> None:
        """Let through to `queue` what a worker may send that was offered the host functions of `queue`."""
        self._queue = queue
        self._inner = queue.routes
        self._output = self._inner[Output]
        self._recently_ended: list[str] = []
        """At least the last `_REMEMBERED`, and at most twice as many."""
        self._ended: dict[str, int] = {}
        """The highest number of those that ended before, by what stands before it in their ids."""
        self._out_of_order: set[str] = set()
        """Of the recently ended, those whose ids need not be higher than the ids before them."""
        self._late_count = 0
        self._asked: set[str] = set()
        self._asked_bytes = 0
        self.shutting_down = False
        """Whether the worker has been told to end: its executions are over, and its questions are dropped."""

    @property
    def routes(self) -> dict[type[FromWorker], Route]:
        """Where the messages go that are about executions."""
        return {
            Output: self.output,
            OutputRest: self._rest,
            Display: self._display,
            Input: self._input,
            Call: self._call,
            Abandoned: self._abandoned,
            Result: self.end,
        }

    def output(self, message: Output) -> None:
        """Take output: of the execution that runs, late output, or output of no execution."""
        execution_id = message.execution_id
        if execution_id is not None and not message.late and not self._queue.runs(execution_id):
            self._count_late(execution_id, "wrote as")
        self._output(message)

    def _rest(self, message: OutputRest) -> None:
        if self._queue.runs(message.execution_id):
            self._inner[OutputRest](message)
        else:
            self._count_late(message.execution_id, "wrote as")

    def end(self, message: Result | Error) -> None:
        """Take the end of the execution that runs, or of one that was stopped before its turn came."""
        execution_id = message.execution_id or ""
        first = self._queue.first
        if first is None or first.execution_id != execution_id:
            if not (self.shutting_down or self._was_stopped(message, execution_id)):
                raise self._violation(execution_id, "ended")
            self._out_of_order.add(execution_id)
        elif first.named:
            self._out_of_order.add(execution_id)
        self._inner[Result](message)
        recently_ended = self._recently_ended
        recently_ended.append(execution_id)
        if len(recently_ended) > 2 * _REMEMBERED:
            self._forget_oldest()
        self._late_count = 0
        if self._asked:
            self._asked.clear()
            self._asked_bytes = 0

    def _was_stopped(self, message: Result | Error, execution_id: str) -> bool:
        return isinstance(message, Error) and self._queue.is_cancelling(execution_id)

    def _forget_oldest(self) -> None:
        """Keep no more than the highest number of all but the last of those that have ended."""
        oldest = self._recently_ended[:-_REMEMBERED]
        if not self._out_of_order:
            del oldest[:-1]  # the session has made up all the ids, and counts upwards
        for execution_id in oldest:
            stem = execution_id.rstrip(_DIGITS)
            self._ended[stem] = max(self._ended.get(stem, -1), _number(execution_id, stem))
        del self._recently_ended[:-_REMEMBERED]
        self._out_of_order.intersection_update(self._recently_ended)

    def _display(self, message: Display) -> None:
        execution_id = message.execution_id
        if execution_id is not None and not message.late and not self._queue.runs(execution_id):
            self._count_late(execution_id, "showed something as")
            return
        self._inner[Display](message)

    def _input(self, message: Input) -> None:
        if self._may_ask(message.execution_id, message.input_id, "input"):
            self._inner[Input](message)

    def _call(self, message: Call) -> None:
        name = message.capability
        if not self._queue.calls.was_offered(name):
            known = ", ".join(self._queue.calls.names) or "none"
            raise ProtocolError(f"it called {quoted(name)}, which it was not offered; it was: {known}")
        if not self._may_ask(message.execution_id, message.call_id, name):
            return
        if not (_is_array(message.args) and _is_map(message.kwargs)):
            raise ProtocolError(f"the arguments of its call {quoted(message.call_id)} are no array and map")
        self._inner[Call](message)

    def _abandoned(self, message: Abandoned) -> None:
        # An id that is not waited for is ignored: the answer may be on its way.
        if not self.shutting_down:
            self._inner[Abandoned](message)

    def _may_ask(self, execution_id: str, question_id: str, name: str) -> bool:
        if self.shutting_down:
            return False
        if not (self._queue.runs(execution_id) or self._has_ended(execution_id)):
            raise self._violation(execution_id, "asked as")
        prefix = f"{execution_id}:{name}:"
        path = question_id[len(prefix) :]
        numbers = path.isascii() and all(part.isdigit() for part in path.split("."))
        if not (numbers and question_id.startswith(prefix)):
            raise ProtocolError(f"{quoted(question_id)} is no id of a call of {name!r} in {execution_id!r}")
        if question_id in self._asked:
            raise ProtocolError(f"it asked {quoted(question_id)} twice")
        self._asked.add(question_id)
        # In the record, in the set here, and in the tasks that answer: about four times.
        self._asked_bytes += _QUESTION_BYTES + 4 * len(question_id)
        if self._asked_bytes > _MAX_QUESTION_BYTES:
            count = len(self._asked)
            raise ProtocolError(f"it asked {count:,} times in execution {execution_id!r}: too much to record")
        return True

    def _has_ended(self, execution_id: str) -> bool:
        """Return whether a task or thread of an execution may ask: this worker has run it to its end."""
        if self._queue.find(execution_id) is not None:
            return False
        stem = execution_id.rstrip(_DIGITS)
        return execution_id in self._recently_ended or (
            _number(execution_id, stem) <= self._ended.get(stem, -1)
        )

    def _count_late(self, execution_id: str, what: str) -> None:
        if self.shutting_down:
            return
        if execution_id not in self._recently_ended:
            raise self._violation(execution_id, what)
        self._late_count += 1
        if self._late_count > _MAX_LATE_MESSAGES:
            raise ProtocolError(f"it {what} execution {quoted(execution_id)} again and again after its end")

    def _violation(self, execution_id: str, what: str) -> ProtocolError:
        waits = self._queue.find(execution_id) is not None
        state = "has not begun" if waits else "is not in flight"
        return ProtocolError(f"it {what} execution {quoted(execution_id)}, which {state}")


def _number(execution_id: str, stem: str) -> int:
    return int(execution_id[len(stem) :] or "0")


def _is_array(raw: msgspec.Raw) -> bool:
    first = memoryview(raw)[0]
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


def _is_map(raw: msgspec.Raw) -> bool:
    first = memoryview(raw)[0]
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)
