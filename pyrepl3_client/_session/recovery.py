"""Brings a session back after its worker's death: settles the cells under way, and fills the next worker."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pyrepl3_client._execution.cancellation import cancelled_error
from pyrepl3_client._execution.queue import ExecutionQueue, Interrupted
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.outcomes import Rejected
from pyrepl3_client._journal.protocol import Record
from pyrepl3_client._session import death_policy
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._session.death_policy import Backoff, DeathPolicy, InterruptedFate, interrupted_fates
from pyrepl3_client._session.options import Durability
from pyrepl3_client._session.recorder import Recorder
from pyrepl3_client._session.recovery_progress import ProgressTeller
from pyrepl3_client._session.recovery_report import Recovery, RecoveryProgress
from pyrepl3_client._session.replay import Replay
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.events import RecoveryEvent
from pyrepl3_client._text import truncated
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.errors import (
    DeathCertificate,
    ProtocolError,
    SpawnError,
    StoreError,
    WorkerDied,
    WorkerUnresponsive,
)

_STOP_KILLED: Final = "did not stop, so its worker was ended; the namespace is as it was before it began"


@dataclass(frozen=True, slots=True)
class ExecutionTroubles:
    """What has gone wrong with single executions, by their ids."""

    diverged: dict[str, str]
    """They asked for something else than their record holds, and for what."""
    unrecorded: dict[str, StoreError]
    """Their call or prompt could not be recorded: each has to end with its error."""


class RecoveryRunner:
    """Settles what a death interrupted, and fills new workers until one holds."""

    def __init__(
        self,
        session_id: str,
        queue: ExecutionQueue,
        checkpoints: CheckpointScheduler,
        recorder: Recorder,
        record: Record,
        durability: Durability,
        policy: DeathPolicy,
        troubles: ExecutionTroubles,
        start_worker: Callable[[], Awaitable[WorkerHandle]],
        clear_directory: Callable[[], Awaitable[None]],
        tell: Callable[[Recovery], None],
        telemetry: Telemetry,
    ) -> None:
        """Bring back what `record` holds.

        Args:
            session_id: the session.
            queue: has the executions that were under way.
            checkpoints: restores a checkpoint.
            recorder: gives up executions.
            record: what is on record.
            durability: the session's policies.
            policy: decides what is run again.
            troubles: what has gone wrong with single executions; filled while cells run again.
            start_worker: starts a worker with an empty namespace, and waits until it is ready.
            clear_directory: empties the session's own directory.
            tell: gets reports of a recovery that takes long, while it is under way.
            telemetry: each recovery is announced to it, when it begins and when it has ended.
        """
        self._session_id = session_id
        self._queue = queue
        self._checkpoints = checkpoints
        self._recorder = recorder
        self._record = record
        self._durability = durability
        self._policy = policy
        self._troubles = troubles
        self._start_worker = start_worker
        self._clear_directory = clear_directory
        self._tell = tell
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff()

    async def settle_interrupted(self, certificate: DeathCertificate, interrupted: Interrupted) -> None:
        """Do with the interrupted executions what the policy decides: end them, or have them run again.

        Raises:
            StoreError: the death cannot be recorded.
        """
        first, unrecorded = interrupted.first, self._troubles.unrecorded
        if first is not None:
            self._recorder.keep_run(first)
        fates = interrupted_fates(
            None if first is None else first.execution_id,
            [execution.execution_id for execution, _ in interrupted.stopped],
            unrecorded,
        )
        for execution, reason in interrupted.stopped:
            why = "timeout" if reason == "timeout" else "cancelled"
            execution.keep_last_output()
            self._queue.end(execution, cancelled_error(execution.execution_id, why, _STOP_KILLED))
        if first is None:
            return
        match fates[first.execution_id]:
            case InterruptedFate.END_STOPPED:
                pass  # above
            case InterruptedFate.END_UNRECORDED:
                first.keep_last_output()
                self._recorder.abandon(first, unrecorded.pop(first.execution_id))
            case InterruptedFate.COUNT_DEATH if first.done:
                pass  # it was cancelled meanwhile
            case InterruptedFate.COUNT_DEATH:
                deaths = await self._record.add_death(first.execution_id)
                if self._policy.may_run_again(certificate, deaths):
                    first.attempts = deaths + 1
                elif not first.done:
                    self._reject(first, certificate, deaths)

    def record_ends(self, death: WorkerDied, interrupted: Interrupted) -> None:
        """Record of what was interrupted in a session that stays dead what is never to be run again.

        That is a cell that has ended its worker itself or did not stop. The rest stays without an outcome.
        """
        first, unrecorded = interrupted.first, self._troubles.unrecorded
        certificate = death.certificate
        if first is None or first.done or certificate is None:
            return
        if first.execution_id in unrecorded:
            self._recorder.abandon(first, unrecorded.pop(first.execution_id))
        elif any(first is stopped for stopped, _ in interrupted.stopped) or not self._policy.may_run_again(
            certificate, first.attempts
        ):
            first.failure_cause = death.__cause__
            self._reject(first, certificate, first.attempts, death.running)
        else:
            first.keep_last_output()

    def _reject(
        self,
        execution: ExecutionRecord,
        certificate: DeathCertificate,
        deaths: int,
        running: tuple[str, ...] = (),
    ) -> None:
        what = f"worker {certificate.pid} of session {self._session_id!r} died"
        self._recorder.reject(execution, Rejected("worker_died", what, certificate, deaths, running=running))

    async def refill(
        self, certificate: DeathCertificate | None, began: float, worker: WorkerHandle | None
    ) -> Recovery:
        """Fill a worker, and the next when it dies under that, until one holds; return the report.

        Args:
            certificate: the death that this recovery is for; None when the session is opened again.
            began: when the recovery began, in seconds of the loop's clock.
            worker: one that is ready and empty; None starts one.

        Raises:
            SpawnError: no worker can be started.
            StoreError: the record cannot be read.
        """
        number = 0 if worker is None else worker.number
        self._announce(certificate)

        def tell(progress: RecoveryProgress) -> None:
            self._tell(
                Recovery(
                    cause=certificate, incarnation=number, restored_from=None, replayed=(), lost=(),
                    skipped=(), seconds=self._loop.time() - began, progress=progress,
                )
            )  # fmt: skip

        teller = ProgressTeller(tell, began)
        replay = Replay(
            self._queue,
            self._record,
            self._checkpoints,
            self._durability.recovery,
            self._durability.max_attempts,
            self._troubles.diverged,
            self._clear_directory,
            teller,
            self._telemetry,
        )
        try:
            worker = await self._fill(worker, replay, teller)
        finally:
            teller.stop()
        if replay.replayed:
            self._checkpoints.note_replay()
        report = Recovery(
            cause=certificate,
            incarnation=worker.number,
            restored_from=replay.restored_from,
            replayed=tuple(replay.replayed),
            lost=(*replay.lost.values(), *self._checkpoints.take_lost_files()),
            skipped=replay.skipped,
            remade=tuple(replay.remade.items()),
            outdated=tuple(replay.outdated.values()),
            seconds=self._loop.time() - began,
        )
        self._announce(certificate, report)
        return report

    def _announce(self, certificate: DeathCertificate | None, report: Recovery | None = None) -> None:
        whose, reopened = self._telemetry.whose, certificate is None
        if report is None:
            event = RecoveryEvent(**whose, state="started", reopened=reopened)
        else:
            event = RecoveryEvent(
                **whose,
                state="done",
                reopened=reopened,
                seconds=report.seconds,
                restored_from=report.restored_from,
                replayed=report.replayed,
                lost=tuple(unsaved.name for unsaved in report.lost),
                skipped=tuple(skipped.execution_id for skipped in report.skipped),
                summary=str(report),
            )
        self._telemetry.announce(event)

    def announce_failure(self, error: Exception, began: float) -> None:
        """Announce that the session stays dead; `began` is as for `refill`."""
        seconds = self._loop.time() - began
        self._telemetry.announce(
            RecoveryEvent(**self._telemetry.whose, state="failed", seconds=seconds, summary=str(error))
        )

    async def _fill(
        self, worker: WorkerHandle | None, replay: Replay, teller: ProgressTeller
    ) -> WorkerHandle:
        failed_spawns = 0
        while True:
            if worker is None:
                teller.at("starting a worker")
                await asyncio.sleep(self._backoff.next(self._loop.time()))
                try:
                    worker = await self._start_worker()
                except SpawnError:
                    failed_spawns += 1
                    if failed_spawns == death_policy.MAX_SPAWN_FAILURES:
                        raise
                    continue
            try:
                await replay.run(worker)
            except (WorkerDied, WorkerUnresponsive, ProtocolError) as error:
                # It died under it, is stuck, or could not bring back what it was given: another one may.
                await worker.kill(f"it did not bring the namespace back: {truncated(str(error))}")
                worker = None
                certificate = error.certificate if isinstance(error, WorkerDied) else None
                replay.count_failure(own_doing=certificate is not None and certificate.own_doing)
                continue
            return worker

    async def call_handler(self, report: Recovery) -> None:
        """Give the report to the session's owner."""
        handler = self._durability.on_recovery
        if handler is None:
            return
        try:
            awaitable = handler(report)
            if awaitable is not None:
                await awaitable
        except Exception as error:  # noqa: BLE001 - it is reported to the loop, the session goes on
            self._loop.call_exception_handler({"message": "on_recovery failed", "exception": error})
