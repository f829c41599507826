"""Records a session's executions in a store, each as a durable function that waits for its outcome."""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.handlers import NO_HANDLERS, Handlers
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord, watch_execution
from pyrepl3_client._journal.outcomes import Outcome, Rejected, decode_outcome, encode_outcome
from pyrepl3_client._journal.protocol import BridgeMetrics, Entry, Journal, Spec
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._session.recorded_text import RecordedText, UnrecordedText
from pyrepl3_client._session.recorder import OutcomeDelivery, join_in_flight, outcome_of, with_output
from pyrepl3_client._session.run_texts import RunOutput, RunRecorder
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import ExecutionIdConflict, LeaseLost, StoreError
from pyrepl3_schemas.messages import Error, Result, StreamName


class JournalRecorder:
    """A `Recorder` whose record outlives this process."""

    def __init__(
        self,
        journal: Journal,
        queue: ExecutionQueue,
        checkpoints: CheckpointScheduler,
        delivery: OutcomeDelivery,
        *,
        task_owner: TaskOwner,
        telemetry: Telemetry,
        config: WorkerConfig,
        max_attempts: int,
    ) -> None:
        """Record in `journal`, which this owns from now on.

        Args:
            journal: the session's record.
            queue: the session's executions.
            checkpoints: told of each execution that has ended.
            delivery: delivers outcomes.
            task_owner: owns the tasks that wait for the journal.
            telemetry: trouble with the journal is announced to it.
            config: has the time limit of an execution that is taken up and has no timeout, and how much there
                may be of texts that are recorded beside outcomes.
            max_attempts: how many workers such an execution may cost.
        """
        self._journal = journal
        self._queue = queue
        self._checkpoints = checkpoints
        self._delivery = delivery
        self._task_owner = task_owner
        self._telemetry = telemetry
        self._max_execution_time = config.executor.max_execution_time
        self._max_attempts = max_attempts
        self._max_text_bytes = config.max_spill_bytes
        self._runs = RunRecorder(journal, queue, task_owner, telemetry, config.max_spill_bytes)
        self._writing: set[asyncio.Task[None]] = set()
        """Write what outcomes do not hold."""
        self._unrecorded: dict[str, UnrecordedText] = {}
        """That, by the ids of executions, until it is on record."""
        self._in_flight: dict[str, ExecutionRecord] = {}
        """Executions that have no recorded outcome yet, and are this recorder's to settle."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """The newest recording of each id, until it has ended."""
        self._held_outcomes: dict[str, tuple[Outcome, bool]] = {}
        """Outcomes of executions that are not on record yet; whether not to run them again."""

    @property
    def metrics(self) -> BridgeMetrics:
        """What the bridge between the store's promises and the session has done."""
        return self._journal.metrics

    # --- taking executions ---------------------------------------------------------------------------

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
        """Queue an execution, and have it wait there until it is on record. See `Recorder`."""
        in_flight = self._in_flight.get(execution_id) if named else None
        if in_flight is not None and not in_flight.settled:
            return join_in_flight(in_flight, spec.code, handlers, check=check)
        execution = ExecutionRecord(self._queue, execution_id, spec, seconds, handlers, check, keep, named)
        execution.on_text = self._runs.on_text
        self._queue.reserve(execution)
        self._in_flight[execution_id] = execution
        self._start_recording(execution)
        return execution

    async def resume(self, unfinished: Sequence[Entry]) -> None:
        """Take up the executions that another process has left without an outcome. See `Recorder`."""
        for index, entry in enumerate(unfinished):
            execution_id = entry.execution_id
            execution = ExecutionRecord(
                self._queue,
                execution_id,
                entry.spec,
                entry.spec.timeout or self._max_execution_time,
                NO_HANDLERS,
                check=None,
                keep=True,
            )
            attempts = entry.attempts
            if index == 0:
                # It had begun to run: executions run one after the other.
                attempts = await self._journal.add_death(execution_id)
                self._queue.call_log.expect(
                    execution_id, await self._journal.calls(execution_id), closed=False
                )
            if attempts >= self._max_attempts:
                text = f"execution {execution_id!r} was given up: its process ended {attempts} times"
                self._held_outcomes[execution_id] = Rejected("worker_died", text, attempts=attempts), True
            watch_execution(self._telemetry, execution, is_resumed=True)
            execution.on_text = self._runs.on_text
            self._queue.reserve(execution)
            self._in_flight[execution_id] = execution
            self._start_recording(execution)

    def _start_recording(self, execution: ExecutionRecord) -> None:
        execution_id = execution.execution_id
        task = self._task_owner.start(
            self._record_until_settled(execution, self._tasks.get(execution_id)),
            f"execution {execution_id!r}",
        )
        if not task.done():
            self._tasks[execution_id] = task
            task.add_done_callback(partial(self._recording_done, execution_id))

    def _recording_done(self, execution_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(execution_id) is task:
            del self._tasks[execution_id]

    async def _record_until_settled(
        self, execution: ExecutionRecord, earlier: asyncio.Task[None] | None
    ) -> None:
        """Record an execution, let it run when it is on record, and deliver its recorded outcome.

        However this ends, the execution is settled then, or another recorder has taken it over (`_release`).
        `earlier` is the recording of an abandoned execution of its id.
        """
        execution_id = execution.execution_id

        def submit(entry: Entry) -> None:
            execution.number = entry.seq
            execution.attempts = max(execution.attempts, entry.attempts + 1)
            held = self._held_outcomes.pop(execution_id, None)
            if held is not None:
                self._queue.drop(execution)
                self._record_outcome(execution, held[0], final=held[1])
            else:
                self._queue.release(execution)

        try:
            if earlier is not None and not earlier.done():
                # It would get the outcome instead, and this one would never be submitted.
                earlier.cancel()
                await asyncio.wait([earlier])
            data, before = await self._journal.execute(execution_id, execution.spec, submit)
            outcome = decode_outcome(data)
        except (StoreError, ExecutionIdConflict) as error:
            # That another owner has the session, or that an outcome could not be recorded, is told already.
            is_news = not isinstance(error, ExecutionIdConflict | LeaseLost) and not execution.done
            if self._release(execution):
                if is_news:
                    what = "an execution could not be recorded, and was not run"
                    self._telemetry.store_trouble(what, error, execution_id=execution_id)
                execution.fail(error)
        except BaseException as error:
            if self._release(execution):
                execution.fail(
                    StoreError(
                        f"the recording of execution {execution_id!r} ended with {error!r}; ask for it again "
                        "under the same id"
                    )
                )
            raise
        else:
            if self._release(execution):
                execution.mark_done()
                if before:
                    execution.kept = self._queue.keeper.find(execution_id)
                    if outcome.written.truncated:
                        execution.text_on_record = self.text_on_record(execution_id)
                self._delivery.deliver(execution, outcome, before=before)

    def _release(self, execution: ExecutionRecord) -> bool:
        """Have an execution no more; return whether the caller has it now, and settles it.

        It does not when the queue was given it before (`abandon`, `let_go`), or another execution has its id.
        """
        execution_id = execution.execution_id
        if self._in_flight.get(execution_id) is not execution:
            return False
        del self._in_flight[execution_id]
        self._held_outcomes.pop(execution_id, None)
        self._queue.drop(execution)
        return True

    # --- their ends ----------------------------------------------------------------------------------

    def execution_ended(self, execution: ExecutionRecord, last: Result | Error, final: bool) -> None:  # noqa: FBT001
        """Record the last message of an execution, and deliver it when it is on record. See `Recorder`."""
        rejection = self._delivery.rejection(execution)
        final = final or rejection is not None
        self._record_outcome(
            execution, rejection or outcome_of(execution, last, self.run_name()), final=final
        )
        self._checkpoints.execution_ended(last.duration, urgent=final)

    def reject(self, execution: ExecutionRecord, rejection: Rejected) -> None:
        """Give up an execution that is not at the worker. See `Recorder`."""
        self._queue.drop(execution)
        self._record_outcome(execution, with_output(execution, rejection, self.run_name()), final=True)

    def _record_outcome(self, execution: ExecutionRecord, outcome: Outcome, *, final: bool) -> None:
        execution_id = execution.execution_id
        if execution.number == 0:
            if self._in_flight.get(execution_id) is execution:
                self._held_outcomes[execution_id] = outcome, final
            return
        self._queue.ending[execution_id] = final
        text = UnrecordedText.of(execution, outcome.written) if self._max_text_bytes else None
        if text is not None:
            self._unrecorded[execution_id] = text
            execution.text_on_record = self.text_on_record(execution_id)
        self._task_owner.start(
            self._write_outcome(execution_id, encode_outcome(outcome), text, outcome.run, final=final),
            "outcome",
        )

    async def _write_outcome(
        self, execution_id: str, data: bytes, text: UnrecordedText | None, run: str, *, final: bool
    ) -> None:
        try:
            await self._journal.settle(execution_id, data, rejected=final)
        except StoreError as error:
            # Its `execute` tells the caller; the journal keeps the outcome and records it when it can.
            self._delivery.notices.append(
                f"the outcome of {execution_id!r} could not be recorded at once: {error}"
            )
            what = "an outcome could not be recorded at once"
            self._telemetry.store_trouble(what, error, execution_id=execution_id)
            self._let_go_of_text(execution_id, text)
            text = None
        else:
            self._runs.ended(execution_id, run)
        finally:
            self._queue.ending.pop(execution_id, None)
        if text is not None:
            # Not cancelled at the session's end, which waits for it.
            task = asyncio.create_task(self._write_text(execution_id, text), name="text")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    def _let_go_of_text(self, execution_id: str, text: UnrecordedText | None) -> None:
        if self._unrecorded.get(execution_id) is text:
            self._unrecorded.pop(execution_id, None)

    async def _write_text(self, execution_id: str, text: UnrecordedText) -> None:
        try:
            await text.write(self._journal, self._max_text_bytes)
        except StoreError as error:
            self._delivery.notices.append(
                f"what {execution_id!r} wrote could not be recorded to its end: {error}"
            )
            what = "what an execution wrote could not be recorded to its end"
            self._telemetry.store_trouble(what, error, lost=True, execution_id=execution_id)
        finally:
            self._let_go_of_text(execution_id, text)

    def run_name(self) -> str:
        """Return the name of runs in the present worker."""
        return self._runs.run_name()

    def find(self, execution_id: str) -> ExecutionRecord | None:
        """Return an execution whose outcome is not on record yet."""
        return self._in_flight.get(execution_id)

    async def outcome(self, execution_id: str) -> Outcome | None:
        """Return a recorded outcome. See `Recorder`."""
        data = await self._journal.outcome(execution_id)
        return None if data is None else decode_outcome(data)

    def keep_run(self, execution: ExecutionRecord) -> None:
        """Record what an execution has written in the present worker. See `Recorder`."""
        self._runs.keep(execution)

    async def runs(self, execution_id: str) -> list[RunOutput]:
        """Return the runs of an execution that are on record. See `Recorder`."""
        return await self._runs.of(execution_id)

    async def read_run(
        self, execution_id: str, run: str, stream: StreamName, start: int, stop: int | None
    ) -> str:
        """Return a part of what such a run has written. See `Recorder`."""
        return await self._runs.read(execution_id, run, stream, start, stop)

    def text_on_record(self, execution_id: str) -> RecordedText:
        """Return what reads the text of an execution from the store. See `Recorder`."""
        return RecordedText(self._journal, execution_id, repr(execution_id), self._unrecorded)

    def abandon(self, execution: ExecutionRecord, error: Exception) -> None:
        """End an execution for its caller. See `Recorder`."""
        execution_id = execution.execution_id
        if self._in_flight.get(execution_id) is execution:
            del self._in_flight[execution_id]
            self._held_outcomes.pop(execution_id, None)
            task = self._tasks.get(execution_id)
            if task is not None:
                task.cancel()
        self._queue.fail(execution, error)

    # --- the session's end ---------------------------------------------------------------------------

    def let_go(self, *, but_ended: bool = False) -> Collection[ExecutionRecord]:
        """Hand executions to the queue. See `Recorder`."""
        kept = {key: each for key, each in self._in_flight.items() if but_ended and each.done}
        for execution_id in [key for key in self._in_flight if key not in kept]:
            del self._in_flight[execution_id]
            self._held_outcomes.pop(execution_id, None)
        for execution_id, task in list(self._tasks.items()):
            if execution_id not in kept:
                task.cancel()
        return kept.values()

    async def exempt_next_death(self) -> None:
        """Let the close cost the execution that runs nothing, nor what it has written. See `Recorder`."""
        for execution_id in self._queue.running:
            execution = self._queue.find(execution_id)
            if execution is not None and execution.number and not execution.is_replay:
                await self._runs.write_now(execution)
                await self._journal.exempt_next_death(execution_id)
                return

    async def save_last(self) -> None:
        """Save what ran since the last checkpoint, so that nothing has to be run again next time."""
        if self._checkpoints.has_unsaved_work:
            await self._checkpoints.save_last()

    async def close(self) -> None:
        """Write texts to their ends, and release the session: another owner may have it at once."""
        if self._writing:
            await asyncio.wait(self._writing)
        await self._journal.close()
        self._queue.keeper.close()
