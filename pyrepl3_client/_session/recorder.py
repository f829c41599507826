"""The protocol between a session's executions and its record, and what both of its implementations share.

What is on record is not run, what runs is recorded. `MemoryRecorder` records in this process's memory, in
the same turn of the loop; `JournalRecorder` waits for a store. The supervisor chooses one.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from pyrepl3_client._execution.handlers import Handlers
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.id_conflict import conflict
from pyrepl3_client._journal.outcomes import EndedOutcome, Outcome, Rejected, replay_output
from pyrepl3_client._journal.protocol import BridgeMetrics, Entry, Spec
from pyrepl3_client._session.recorded_text import RecordedText
from pyrepl3_client._session.run_texts import RunOutput
from pyrepl3_schemas.messages import Display, Error, Result, StreamName


class Recorder(Protocol):
    """Records the executions of one session: what is submitted, how it ends."""

    @property
    def metrics(self) -> BridgeMetrics | None:
        """What the bridge to the store has done; None without a store."""
        ...

    def submit(
        self,
        execution_id: str,
        spec: Spec,
        seconds: float | None,
        handlers: Handlers,
        *,
        check: bool,
        keep: bool,
        named: bool,
    ) -> ExecutionRecord:
        """Record an execution and queue it. See `ExecutionRecord` for the arguments.

        Args:
            execution_id: its id.
            spec: what to run.
            seconds: its timeout, from its beginning.
            handlers: get its output and displays, and answer its prompts.
            check: whether its result raises when the code failed.
            keep: whether it can be iterated over.
            named: whether the caller has chosen the id, and may submit it again.

        Returns:
            The execution, or the one of that id that is under way already.

        Raises:
            ExecutionIdConflict: the id stands for other code.
            ProtocolError: its code cannot be sent.
        """
        ...

    async def resume(self, unfinished: Sequence[Entry]) -> None:
        """Take up the executions that another process has left without an outcome, in their order.

        Raises:
            StoreError: the record cannot be read or written.
        """
        ...

    def text_on_record(self, execution_id: str) -> RecordedText | None:
        """Return what reads the text of an execution from the record; None if only outcomes are recorded."""
        ...

    def run_name(self) -> str:
        """Return the name of runs in the present worker. See `RunOutput`."""
        ...

    def find(self, execution_id: str) -> ExecutionRecord | None:
        """Return an execution whose outcome is not on record yet, if this has it."""
        ...

    async def outcome(self, execution_id: str) -> Outcome | None:
        """Return a recorded outcome; None if there is none, or it cannot be asked for again.

        Raises:
            StoreError: the record cannot be read.
        """
        ...

    def keep_run(self, execution: ExecutionRecord) -> None:
        """Keep what an execution has written in the present worker, which has died."""
        ...

    async def runs(self, execution_id: str) -> list[RunOutput]:
        """Return the runs of an execution that are kept beside its outcome, in their order.

        Raises:
            StoreError: the record cannot be read.
        """
        ...

    async def read_run(
        self, execution_id: str, run: str, stream: StreamName, start: int, stop: int | None
    ) -> str:
        """Return a part of what such a run has written.

        Raises:
            OutputNotKept: it is not kept.
            StoreError: the record cannot be read.
        """
        ...

    def execution_ended(self, execution: ExecutionRecord, last: Result | Error, final: bool) -> None:  # noqa: FBT001
        """Record the last message of an execution, and deliver it when it is on record.

        A `final` one is not to be run again for its effect.
        """
        ...

    def reject(self, execution: ExecutionRecord, rejection: Rejected) -> None:
        """Give up an execution that is not at the worker; it is not run again."""
        ...

    def abandon(self, execution: ExecutionRecord, error: Exception) -> None:
        """End an execution for its caller; in the record it stays without an outcome."""
        ...

    def let_go(self, *, but_ended: bool = False) -> Collection[ExecutionRecord]:
        """Wait for no outcome any more: the queue fails every execution that is not settled yet.

        Args:
            but_ended: wait on for the recording of outcomes that are known.

        Returns:
            The executions that this goes on to settle.
        """
        ...

    async def exempt_next_death(self) -> None:
        """Record that the session is closed: that costs nothing to what is taken up when it is opened again.

        Raises:
            StoreError: it cannot be recorded.
        """
        ...

    async def save_last(self) -> None:
        """Save a last checkpoint, where another process may need it.

        Raises:
            PyRepl3Error: it could not be taken or recorded.
        """
        ...

    async def close(self) -> None:
        """Release the record. Idempotent, and never raises."""
        ...


class OutcomeDelivery:
    """Delivers outcomes to the executions they belong to, with what is to be told beside them."""

    def __init__(self, notices: list[str], diverged: dict[str, str]) -> None:
        """Deliver with the next outcome what is in `notices`.

        `diverged` holds the executions that asked for something else than their record holds, and for what.
        """
        self.notices = notices
        self.diverged = diverged

    def rejection(self, execution: ExecutionRecord) -> Rejected | None:
        """Return why an execution that has ended does not count; None if it does."""
        if not self.diverged:
            return None
        text = self.diverged.pop(execution.execution_id, None)
        return None if text is None else Rejected("replay_divergence", text, attempts=execution.attempts)

    def deliver(self, execution: ExecutionRecord, outcome: Outcome, *, before: bool) -> None:
        """Finish an execution with an outcome; `before`: it was on record before this submission."""
        self.attach_notices(execution)
        execution.replayed = before
        execution.attempts = outcome.attempts
        if before:
            execution.truncated = outcome.written.truncated
            if execution.truncated and execution.text_on_record is None:
                execution.partial = "only what its result has of it is on record"
            for message in replay_output(execution.execution_id, outcome.written):
                if isinstance(message, Display):
                    execution.add_display(message)
                else:
                    execution.add_output(message)
        if isinstance(outcome, Rejected):
            error = outcome.error(execution.execution_id)
            error.__cause__ = execution.failure_cause
            execution.fail(error)
        else:
            execution.finish(outcome.last)

    def attach_notices(self, execution: ExecutionRecord) -> None:
        """Let an execution's result tell what its session has to tell."""
        if self.notices:
            execution.notices = tuple(self.notices)
            self.notices.clear()


def join_in_flight(
    in_flight: ExecutionRecord,
    code: str,
    handlers: Handlers,
    *,
    check: bool,
) -> ExecutionRecord:
    """Return the execution that is under way under an id that is submitted again, with more handlers.

    Raises:
        ExecutionIdConflict: the id stands for other code.
    """
    if in_flight.code != code:
        raise conflict(in_flight.execution_id, in_flight.code, code)
    in_flight.share_with(handlers, check=check)
    return in_flight


def with_output(execution: ExecutionRecord, rejection: Rejected, run: str) -> Rejected:
    """Return a rejection with what the execution had written: what came of its last worker is its output."""
    execution.keep_last_output()
    return msgspec.structs.replace(rejection, written=execution.recorded_output(), run=run)


def outcome_of(execution: ExecutionRecord, last: Result | Error, run: str) -> EndedOutcome:
    """Return what is recorded of an execution whose last message has come."""
    return EndedOutcome(last, execution.recorded_output(), execution.attempts, run)
