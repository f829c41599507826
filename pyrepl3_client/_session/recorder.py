"""Between the executions of a session and its record: what is on record is not run, what runs is recorded."""

import asyncio
from typing import Final

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.cancellation import cancelled_error
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._journal.outcomes import (
    Ended,
    Outcome,
    Rejected,
    decode_outcome,
    encode_outcome,
    replay_output,
)
from pyrepl3_client._journal.protocol import Entry, Journal, conflict
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client.errors import ExecutionIdConflict, StoreError
from pyrepl3_schemas.messages import Display, Error, Result

STOP_KILLED: Final = "it did not stop, so its worker was ended; the namespace is as it was before it began"


class ExecutionRecorder:
    """Sees the executions of one session through, from the record's point of view."""

    def __init__(
        self,
        task_owner: TaskOwner,
        record: MemoryJournal | Journal,
        queue: ExecutionQueue,
        checkpoints: CheckpointScheduler,
        notices: list[str],
        diverged: dict[str, str],
    ) -> None:
        """Record in `record`; tell `checkpoints` of each cell that has ended.

        `notices` is what the next result tells its owner. `diverged` holds the executions that asked for
        something else than their record holds, and for what.
        """
        self._task_owner = task_owner
        self._record = record
        self._queue = queue
        self._checkpoints = checkpoints
        self._live: dict[str, ExecutionRecord] = {}
        """Executions somebody may ask for again that have no recorded outcome yet."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._early: dict[str, tuple[Outcome, bool]] = {}
        """Outcomes of executions that are not on record yet; whether not to run them again."""
        self.failures: dict[str, StoreError] = {}
        """Executions whose call or prompt could not be recorded: each has to end with its error."""
        self.diverged = diverged
        self.notices = notices

    # --- taking executions ---------------------------------------------------------------------------

    def submit(self, execution: ExecutionRecord, *, named: bool) -> ExecutionRecord:
        """Take an execution; give it, or the one of that id that is under way already.

        Raises:
            ExecutionIdConflict: the id stands for other code.
            ProtocolError: its code cannot be sent.
        """
        execution_id = execution.execution_id
        live = self._live.get(execution_id) if named else None
        if live is not None:
            if live.code != execution.code:
                raise conflict(execution_id, live.code, execution.code)
            live.share_with(execution)
            return live
        record = self._record
        if not isinstance(record, MemoryJournal):
            self._queue.reserve(execution)
            self._live[execution_id] = execution
            self._see_through(record, execution)
            return execution
        if named:
            outcome = record.find(execution_id, execution.code)
            if outcome is not None:
                execution.mark_done()
                self._deliver(execution, decode_outcome(outcome), before=True)
                return execution
            self._live[execution_id] = execution
        execution.number = record.begin(execution_id, execution.spec, named=named)
        try:
            self._queue.submit(execution)
        except BaseException:
            record.discard(execution_id)
            self._live.pop(execution_id, None)
            raise
        return execution

    async def resume(self, entry: Entry, execution: ExecutionRecord, max_attempts: int, *, ran: bool) -> None:
        """Take up an execution that another process has left without an outcome; `ran` if it had begun."""
        record = self._record
        assert not isinstance(record, MemoryJournal)
        attempts = entry.attempts
        if ran:
            attempts = await record.add_death(entry.execution_id)
            self._queue.recorded.expect(
                entry.execution_id, await record.calls(entry.execution_id), closed=False
            )
        if attempts >= max_attempts:
            text = f"execution {entry.execution_id!r} was given up: its process ended {attempts} times"
            self._early[entry.execution_id] = Rejected("worker_died", text, attempts=attempts), True
        self._queue.reserve(execution)
        self._live[entry.execution_id] = execution
        self._see_through(record, execution)

    def _see_through(self, journal: Journal, execution: ExecutionRecord) -> None:
        task = self._task_owner.start(self._run(journal, execution), f"execution {execution.execution_id!r}")
        if not task.done():
            self._tasks[execution.execution_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(execution.execution_id, None))

    async def _run(self, journal: Journal, execution: ExecutionRecord) -> None:
        execution_id = execution.execution_id

        def submit(entry: Entry) -> None:
            execution.number = entry.seq
            execution.attempts = max(execution.attempts, entry.attempts + 1)
            early = self._early.pop(execution_id, None)
            if early is not None:
                self._queue.drop(execution)
                self._settle(execution, early[0], final=early[1])
            else:
                self._queue.release(execution)

        try:
            data, before = await journal.execute(execution_id, execution.spec, submit)
            outcome = decode_outcome(data)
        except (StoreError, ExecutionIdConflict) as error:
            self._queue.drop(execution)
            execution.mark_done()
            execution.fail(error)
        else:
            self._queue.drop(execution)
            execution.mark_done()
            self._deliver(execution, outcome, before=before)
        finally:
            self._live.pop(execution_id, None)
            self._early.pop(execution_id, None)

    # --- their ends ----------------------------------------------------------------------------------

    def ended(self, execution: ExecutionRecord, last: Result | Error, final: bool) -> None:  # noqa: FBT001
        """Record the last message of an execution, and deliver it when it is on record.

        A `final` one is not to be run again for its effect.
        """
        execution_id = execution.execution_id
        record = self._record
        text = self.diverged.pop(execution_id, None) if self.diverged else None
        if text is None and isinstance(record, MemoryJournal):
            well = isinstance(last, Result)
            record.end(
                execution_id, lambda: encode_outcome(_ended(execution, last)), rejected=final, well=well
            )
            if self._queue.ending:
                self._queue.ending.pop(execution_id, None)
            if self._live:
                self._live.pop(execution_id, None)
            if self.notices:
                self._tell(execution)
            execution.finish(last)
        elif text is None:
            self._settle(execution, _ended(execution, last), final=final)
        else:
            final = True
            self._settle(
                execution, Rejected("replay_divergence", text, attempts=execution.attempts), final=True
            )
        self._checkpoints.ended(last.duration, urgent=final)

    def reject(self, execution: ExecutionRecord, rejection: Rejected) -> None:
        """Give up an execution that is not at the worker, for good."""
        self._queue.drop(execution)
        self._settle(execution, rejection, final=True)

    def stop(self, execution: ExecutionRecord, reason: str) -> None:
        """End an execution that was being stopped when its worker was ended."""
        why = "timeout" if reason == "timeout" else "cancelled"
        self._queue.end(execution, cancelled_error(execution.execution_id, why, STOP_KILLED))

    def _settle(self, execution: ExecutionRecord, outcome: Outcome, *, final: bool) -> None:
        execution_id = execution.execution_id
        record = self._record
        if isinstance(record, MemoryJournal):
            record.end(execution_id, lambda: encode_outcome(outcome), rejected=final)
            self._queue.ending.pop(execution_id, None)
            self._live.pop(execution_id, None)
            self._deliver(execution, outcome, before=False)
            return
        if execution.number == 0:
            self._early[execution_id] = outcome, final
            return
        self._queue.ending[execution_id] = final
        self._task_owner.start(
            self._record_outcome(record, execution_id, encode_outcome(outcome), final=final), "outcome"
        )

    async def _record_outcome(self, journal: Journal, execution_id: str, data: bytes, *, final: bool) -> None:
        try:
            await journal.settle(execution_id, data, rejected=final)
        except StoreError as error:
            # Its `execute` tells the caller; the journal keeps the outcome and records it when it can.
            self.notices.append(f"the outcome of {execution_id!r} could not be recorded at once: {error}")
        finally:
            self._queue.ending.pop(execution_id, None)

    def _deliver(self, execution: ExecutionRecord, outcome: Outcome, *, before: bool) -> None:
        self._tell(execution)
        execution.replayed = before
        execution.attempts = outcome.attempts
        if isinstance(outcome, Rejected):
            execution.fail(outcome.error(execution.execution_id))
            return
        if before:
            execution.truncated = outcome.written.truncated
            for message in replay_output(execution.execution_id, outcome.written):
                if isinstance(message, Display):
                    execution.add_event(message)
                else:
                    execution.add_output(message)
        execution.finish(outcome.last)

    def _tell(self, execution: ExecutionRecord) -> None:
        if self.notices:
            execution.notices = tuple(self.notices)
            self.notices.clear()

    # --- failures of the record ----------------------------------------------------------------------

    def fail(self, execution_id: str, error: StoreError) -> None:
        """A call or prompt could not be recorded: its execution must not go on."""
        self.failures[execution_id] = error

    def abandon(self, execution: ExecutionRecord, error: Exception) -> None:
        """End an execution for its owner; in the record it stays without an outcome."""
        self._live.pop(execution.execution_id, None)
        task = self._tasks.get(execution.execution_id)
        if task is not None:
            task.cancel()
        self._queue.fail(execution, error)

    async def exempt_next_death(self) -> None:
        """The session is closed: that costs nothing to what is taken up when it is opened again.

        Raises:
            StoreError: it cannot be recorded.
        """
        record = self._record
        if isinstance(record, MemoryJournal):
            return
        for execution_id in self._queue.running:
            execution = self._queue.find(execution_id)
            if execution is not None and execution.number and not execution.is_replay:
                await record.exempt_next_death(execution_id)
                return

    def abandon_all(self) -> None:
        """The session ends: nobody waits for outcomes any more."""
        self._live.clear()
        for task in list(self._tasks.values()):
            task.cancel()


def _ended(execution: ExecutionRecord, last: Result | Error) -> Ended:
    return Ended(last, execution.recorded_output(), execution.attempts)
