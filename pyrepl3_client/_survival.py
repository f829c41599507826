"""How a session comes back: from its worker's death, and from the record that another process has left."""

import asyncio
import logging
from typing import Final

from pyrepl3_client._deaths import DeathCertificate, died
from pyrepl3_client._execution import Execution
from pyrepl3_client._flight import Interrupted
from pyrepl3_client._incarnation import Incarnation
from pyrepl3_client._life import Life
from pyrepl3_client._outcomes import Rejected
from pyrepl3_client._rebuild import Rebuild
from pyrepl3_client._recovery import Recovery
from pyrepl3_client._texts import shortened
from pyrepl3_client.errors import ProtocolError, SpawnError, StoreError, WorkerDied, WorkerUnresponsive
from pyrepl3_schemas.lifecycle import SessionState

_logger: Final = logging.getLogger("pyrepl3_client")
_SPAWN_ATTEMPTS: Final = 3
_IDLE_DEATHS: Final = 10
"""Deaths in a row, while nothing runs, that are enough: what is brought back may be what kills."""
_IN_A_ROW: Final = 60.0
"""Seconds from one such death to the next; what comes later has nothing to do with it."""


def _for_good(error: SpawnError | StoreError) -> SpawnError | StoreError:
    """Say of a store's failure, which may be over soon, that it is too late for this session object."""
    if not isinstance(error, StoreError):
        return error
    return StoreError(
        f"the session could not come back from its worker's death: {error}. Then open the session again: "
        "what is on record goes on"
    )


class Survival(Life):
    """A life that goes on in the next worker."""

    _idle_deaths = 0
    """Workers in a row that have died with nothing run since the one before."""
    _last_death = (-1, 0.0)
    """The number of the last execution then, and when it was."""

    async def _bring_back(self, started: float) -> None:
        """Go on from what is on record."""
        if self._durability.open_journal is None or self._durability.recovery == "none":
            await super()._bring_back(started)
            return
        history = await self._record.load()
        pending = [entry for entry in history.entries if entry.status == "started"]
        if history.checkpoint is not None or len(pending) < len(history.entries):
            self._flight.suspend()
            await self._come_back(None, started, fresh=True)
        else:
            self._serve()
        for index, entry in enumerate(pending):
            execution = Execution(
                self._flight,
                entry.execution_id,
                entry.spec,
                entry.spec.timeout or self._config.executor.max_execution_time,
                None,
                None,
                check=None,
                keep=True,
            )
            await self._keeper.resume(entry, execution, self._durability.max_attempts, ran=index == 0)

    def _lost(self, incarnation: Incarnation) -> None:
        """The worker has died: begin to come back in another."""
        if self._durability.recovery == "none":
            super()._lost(incarnation)
            return
        running = self._flight.running
        certificate = incarnation.certificate(running, self._config.executor.max_memory_usage)
        self._move(SessionState.STARTING)
        incarnation.requests.fail_all(lambda: incarnation.death(running))
        interrupted = self._flight.suspend()
        task = self._loop.create_task(
            self._recover(certificate, interrupted), name=f"recovery of {self.session_id}"
        )
        self._coming_back = task
        task.add_done_callback(self._on_back)

    def _on_back(self, task: asyncio.Task[None]) -> None:
        if self._coming_back is task:
            self._coming_back = None
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a session could not come back", "exception": task.exception(), "task": task}
            )

    async def _recover(self, certificate: DeathCertificate, interrupted: Interrupted) -> None:
        started = self._loop.time()
        if self._dies_for_nothing(certificate):
            what = (
                f"{self._idle_deaths} workers of session {self.session_id!r} died one after the other while "
                "nothing ran, so it gets no other; restart() gives it one with an empty namespace"
                f"{', opening it again one with what is on record' if self._durability.open_journal else ''}"
            )
            self._idle_deaths = 0
            self._die(died(what, certificate))
            return
        try:
            await self._judge(certificate, interrupted)
            await self._come_back(certificate, started)
        except (SpawnError, StoreError) as error:
            _logger.error(  # noqa: TRY400 - the error says it all
                "session %r could not come back: %s", self.session_id, error
            )
            if self._state is SessionState.STARTING:
                self._die(_for_good(error))

    def _dies_for_nothing(self, certificate: DeathCertificate) -> bool:
        """Count a worker that has died; say whether too many have while there was nothing to do."""
        (seq, then), now = self._last_death, self._loop.time()
        if seq != self._flight.last_seq or now - then > _IN_A_ROW:
            self._idle_deaths = 0
        self._idle_deaths = 0 if certificate.running else self._idle_deaths + 1
        self._last_death = self._flight.last_seq, now
        return self._idle_deaths >= _IDLE_DEATHS

    async def _judge(self, certificate: DeathCertificate, interrupted: Interrupted) -> None:
        """Decide about what the death has interrupted: it ends here, or is run again."""
        ended: set[str] = set()
        for execution, reason in interrupted.stopped:
            ended.add(execution.execution_id)
            self._keeper.stop(execution, reason)
        first = interrupted.first
        if first is None or first.execution_id in ended:
            return
        failure = self._keeper.failure_of(first)
        if failure is not None:
            self._keeper.forsake(first, failure)
            return
        attempts = await self._record.count_attempt(first.execution_id)
        # Over a limit in a fresh worker too, it needs no third: it was not what ran before it.
        most = self._durability.max_attempts
        if attempts >= (min(most, 2) if certificate.over_limit else most):
            what = f"worker {certificate.pid} of session {self.session_id!r} died"
            self._keeper.reject(first, Rejected("worker_died", what, certificate, attempts))
        else:
            first.attempts = attempts + 1

    async def _come_back(
        self, certificate: DeathCertificate | None, started: float, *, fresh: bool = False
    ) -> None:
        """Fill a new worker (`fresh`: the one that is there) until one holds, and go on in it."""
        rebuild = Rebuild(
            self._flight,
            self._record,
            self._saver,
            self._durability.recovery,
            self._durability.max_attempts,
            self._keeper.diverged,
        )
        failed_spawns = 0
        while True:
            if not fresh:
                await asyncio.sleep(self._backoff.next(self._loop.time()))
                try:
                    await self._start_worker()
                except SpawnError:
                    failed_spawns += 1
                    if failed_spawns == _SPAWN_ATTEMPTS:
                        raise
                    continue
            fresh = False
            incarnation = self._worker()
            try:
                await rebuild.run(incarnation)
            except (WorkerDied, WorkerUnresponsive, ProtocolError) as error:
                # It died under it, is stuck, or could not bring back what it was given: another one may.
                await incarnation.destroy(f"it did not bring the namespace back: {shortened(str(error))}")
                rebuild.blame()
                continue
            break
        self._expect_starting()
        report = Recovery(
            cause=certificate,
            incarnation=incarnation.number,
            restored_from=rebuild.restored_from,
            replayed=tuple(rebuild.replayed),
            lost=tuple(rebuild.lost.values()),
            skipped=rebuild.skips,
            remade=tuple(rebuild.remade.items()),
            seconds=self._loop.time() - started,
        )
        self._recoveries.append(report)
        if certificate is not None or report.lost or report.skipped or report.remade:
            self._keeper.notices.append(str(report))
        if rebuild.replayed:
            self._saver.refilled()
        self._serve()
        # A task of its own: the handler may ask the session something, which has come back by now.
        self._nursery.start(self._report(report), "on_recovery")

    async def _report(self, report: Recovery) -> None:
        handler = self._durability.on_recovery
        if handler is None:
            return
        try:
            awaitable = handler(report)
            if awaitable is not None:
                await awaitable
        except Exception as error:  # noqa: BLE001 - the handler's owner hears of it, the session goes on
            self._loop.call_exception_handler({"message": "on_recovery failed", "exception": error})
