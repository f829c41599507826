"""Records a session's executions in this process's memory, without waiting for anything."""

from collections.abc import Sequence

from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._journal.outcomes import Outcome, Rejected, decode_outcome, encode_outcome
from pyrepl3_client._journal.protocol import Entry
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._session.recorder import OutcomeDelivery, join_live, outcome_of
from pyrepl3_schemas.messages import Error, Result


class MemoryRecorder:
    """A `Recorder` whose record ends with this process."""

    def __init__(
        self,
        journal: MemoryJournal,
        queue: ExecutionQueue,
        checkpoints: CheckpointScheduler,
        delivery: OutcomeDelivery,
    ) -> None:
        """Record in `journal`; tell `checkpoints` of each execution that has ended."""
        self._journal = journal
        self._queue = queue
        self._checkpoints = checkpoints
        self._delivery = delivery
        self._live: dict[str, ExecutionRecord] = {}
        """Executions that can be asked for again by their ids, and have no recorded outcome yet."""

    @property
    def metrics(self) -> None:
        """Return None: there is no store, so no bridge."""
        return

    def submit(self, execution: ExecutionRecord, *, named: bool) -> ExecutionRecord:
        """Take an execution. See `Recorder`."""
        execution_id = execution.execution_id
        if named:
            live = self._live.get(execution_id)
            if live is not None:
                return join_live(live, execution)
            outcome = self._journal.find(execution_id, execution.code)
            if outcome is not None:
                execution.mark_done()
                self._delivery.deliver(execution, decode_outcome(outcome), before=True)
                return execution
            self._live[execution_id] = execution
        execution.number = self._journal.begin(execution_id, execution.spec, named=named)
        try:
            self._queue.submit(execution)
        except BaseException:
            self._journal.discard(execution_id)
            self._live.pop(execution_id, None)
            raise
        return execution

    async def resume(self, unfinished: Sequence[Entry]) -> None:
        """Do nothing: no other process can have left anything in this one's memory."""

    def ended(self, execution: ExecutionRecord, last: Result | Error, final: bool) -> None:  # noqa: FBT001
        """Record the last message of an execution, and deliver it. See `Recorder`."""
        delivery = self._delivery
        rejection = delivery.rejection(execution) if delivery.diverged else None
        if rejection is None:
            execution_id = execution.execution_id
            self._journal.end(
                execution_id,
                lambda: encode_outcome(outcome_of(execution, last)),
                rejected=final,
                well=isinstance(last, Result),
            )
            if self._queue.ending:
                self._queue.ending.pop(execution_id, None)
            if self._live:
                self._live.pop(execution_id, None)
            if delivery.notices:
                delivery.attach_notices(execution)
            execution.finish(last)
        else:
            final = True
            self._settle(execution, rejection)
        self._checkpoints.ended(last.duration, urgent=final)

    def reject(self, execution: ExecutionRecord, rejection: Rejected) -> None:
        """Give up an execution that is not at the worker. See `Recorder`."""
        self._queue.drop(execution)
        self._settle(execution, rejection)

    def _settle(self, execution: ExecutionRecord, outcome: Outcome) -> None:
        execution_id = execution.execution_id
        self._journal.end(execution_id, lambda: encode_outcome(outcome), rejected=True)
        self._queue.ending.pop(execution_id, None)
        self._live.pop(execution_id, None)
        self._delivery.deliver(execution, outcome, before=False)

    def abandon(self, execution: ExecutionRecord, error: Exception) -> None:
        """End an execution for its caller. See `Recorder`."""
        self._live.pop(execution.execution_id, None)
        self._queue.fail(execution, error)

    def abandon_all(self) -> None:
        """The session ends. See `Recorder`."""
        self._live.clear()

    async def exempt_next_death(self) -> None:
        """Do nothing: the session is not opened again from this record."""

    async def save_last(self) -> None:
        """Do nothing: the session is not opened again from this record."""

    async def close(self) -> None:
        """Do nothing: memory is not owned by anything that could be given up."""
