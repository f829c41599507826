"""Records a session's executions in this process's memory, without waiting for anything."""

from collections.abc import Collection, Sequence

from pyrepl3_client._execution.handlers import Handlers
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._journal.outcomes import Outcome, Rejected, decode_outcome, encode_outcome
from pyrepl3_client._journal.protocol import Entry, Spec
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._session.recorder import OutcomeDelivery, join_in_flight, outcome_of, with_output
from pyrepl3_client._session.run_texts import RunOutput, RunTexts
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_schemas.messages import Error, Result, StreamName


class MemoryRecorder:
    """A `Recorder` whose record ends with this process."""

    def __init__(
        self,
        journal: MemoryJournal,
        queue: ExecutionQueue,
        checkpoints: CheckpointScheduler,
        delivery: OutcomeDelivery,
        *,
        telemetry: Telemetry,
    ) -> None:
        """Record in `journal`; tell `checkpoints` of each execution that has ended.

        `telemetry` knows the present worker.
        """
        self._journal = journal
        self._queue = queue
        self._checkpoints = checkpoints
        self._delivery = delivery
        self._telemetry = telemetry
        self._runs = RunTexts()
        self._in_flight: dict[str, ExecutionRecord] = {}
        """Executions that can be asked for again by their ids, and have no recorded outcome yet."""

    @property
    def metrics(self) -> None:
        """Return None: there is no store, so no bridge."""
        return

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
        """Record an execution and queue it. See `Recorder`."""
        outcome: bytes | None = None
        if named:
            in_flight = self._in_flight.get(execution_id)
            if in_flight is not None:
                return join_in_flight(in_flight, spec.code, handlers, check=check)
            outcome = self._journal.find(execution_id, spec.code)
        number = 0 if outcome is not None else self._journal.begin(execution_id, spec, named=named)
        execution = ExecutionRecord(self._queue, execution_id, spec, seconds, handlers, check, keep, named)
        if outcome is not None:
            execution.mark_done()
            execution.kept = self._queue.keeper.find(execution_id)
            self._delivery.deliver(execution, decode_outcome(outcome), before=True)
            return execution
        execution.number = number
        if named:
            self._in_flight[execution_id] = execution
        try:
            self._queue.submit(execution)
        except BaseException:
            self._journal.discard(execution_id)
            self._in_flight.pop(execution_id, None)
            raise
        return execution

    async def resume(self, unfinished: Sequence[Entry]) -> None:
        """Do nothing: no other process can have left anything in this one's memory."""

    def text_on_record(self, execution_id: str) -> None:
        """Return None: what was cut is kept, but not here."""

    def run_name(self) -> str:
        """Return the name of runs in the present worker."""
        return f"1.{self._telemetry.incarnation}"

    def find(self, execution_id: str) -> ExecutionRecord | None:
        """Return an execution whose outcome is not on record yet."""
        return self._in_flight.get(execution_id)

    async def outcome(self, execution_id: str) -> Outcome | None:
        """Return a recorded outcome."""
        data = self._journal.outcome(execution_id)
        return None if data is None else decode_outcome(data)

    def keep_run(self, execution: ExecutionRecord) -> None:
        """Keep what an execution has written in the present worker. See `Recorder`."""
        if execution.named and not execution.is_replay:
            self._runs.keep(execution, self.run_name())

    async def runs(self, execution_id: str) -> list[RunOutput]:
        """Return the runs of an execution that are kept. See `Recorder`."""
        return self._runs.of(execution_id)

    async def read_run(
        self, execution_id: str, run: str, stream: StreamName, start: int, stop: int | None
    ) -> str:
        """Return a part of what such a run has written. See `Recorder`."""
        return self._runs.read(execution_id, run, stream, start, stop)

    def execution_ended(self, execution: ExecutionRecord, last: Result | Error, final: bool) -> None:  # noqa: FBT001
        """Record the last message of an execution, and deliver it. See `Recorder`."""
        delivery = self._delivery
        rejection = delivery.rejection(execution) if delivery.diverged else None
        if rejection is None:
            execution_id = execution.execution_id
            # What is not named cannot be asked for again.
            outcome = (
                encode_outcome(outcome_of(execution, last, self.run_name())) if execution.named else None
            )
            self._journal.end(execution_id, outcome, rejected=final, succeeded=isinstance(last, Result))
            if self._queue.ending:
                self._queue.ending.pop(execution_id, None)
            if execution.named:
                self._in_flight.pop(execution_id, None)
            if delivery.notices:
                delivery.attach_notices(execution)
            execution.finish(last)
        else:
            final = True
            self._record_outcome(execution, rejection)
        self._checkpoints.execution_ended(last.duration, urgent=final)

    def reject(self, execution: ExecutionRecord, rejection: Rejected) -> None:
        """Give up an execution that is not at the worker. See `Recorder`."""
        self._queue.drop(execution)
        self._record_outcome(execution, with_output(execution, rejection, self.run_name()))

    def _record_outcome(self, execution: ExecutionRecord, outcome: Outcome) -> None:
        execution_id = execution.execution_id
        self._journal.end(execution_id, encode_outcome(outcome), rejected=True)
        self._queue.ending.pop(execution_id, None)
        self._in_flight.pop(execution_id, None)
        self._delivery.deliver(execution, outcome, before=False)

    def abandon(self, execution: ExecutionRecord, error: Exception) -> None:
        """End an execution for its caller. See `Recorder`."""
        self._in_flight.pop(execution.execution_id, None)
        self._queue.fail(execution, error)

    def let_go(self, *, but_ended: bool = False) -> Collection[ExecutionRecord]:
        """Hand every execution to the queue: what has ended is recorded already. See `Recorder`."""
        self._in_flight.clear()
        return ()

    async def exempt_next_death(self) -> None:
        """Do nothing: the session is not opened again from this record."""

    async def save_last(self) -> None:
        """Do nothing: the session is not opened again from this record."""

    async def close(self) -> None:
        """Give up what is kept of cut output; memory is not owned by anything that could be given up."""
        self._queue.keeper.close()
