"""A session's life: its record, its workers, its restarts, its end. `Survival` makes it outlive deaths."""

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable
from typing import Final, Self

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._execution.execution import Execution, InputHandler, OutputHandler
from pyrepl3_client._execution.queue import Capabilities, ExecutionQueue, Interrupted, SessionCallbacks
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._journal.outcomes import Rejected
from pyrepl3_client._journal.protocol import RESET, Journal, SavedCheckpoint
from pyrepl3_client._launch.worker import Launch
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._session.death_policy import Backoff
from pyrepl3_client._session.options import Durability
from pyrepl3_client._session.queries import WorkerQueries
from pyrepl3_client._session.recorder import ExecutionRecorder
from pyrepl3_client._session.recovery_report import Recovery
from pyrepl3_client._session.replay import Replay
from pyrepl3_client._text import truncated
from pyrepl3_client._wire.connection import Interceptor
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.tree_limits import watch_tree
from pyrepl3_client.config import WorkerConfig, checked_id
from pyrepl3_client.errors import (
    DeathCertificate,
    ProtocolError,
    PyRepl3Error,
    SessionClosed,
    SpawnError,
    StoreError,
    WorkerDied,
    WorkerUnresponsive,
    make_worker_died,
)
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.lifecycle import SessionState, move_session
from pyrepl3_schemas.messages import Hello

_logger: Final = logging.getLogger("pyrepl3_client")
_FINAL_SAVE: Final = 5.0
"""Most seconds that a last checkpoint may take at a session's end."""


class Life(WorkerQueries):
    """Starts workers, notices their deaths, ends the session."""

    def __init__(
        self,
        session_id: str | None,
        config: WorkerConfig,
        launch: Launch,
        capabilities: Capabilities | None,
        on_output: OutputHandler | None,
        on_input: InputHandler | None,
        durability: Durability,
    ) -> None:
        """Check what was given; `begin` starts the worker.

        Raises:
            ValueError: the session id is empty or holds a colon.
            CapabilityError: a capability cannot be offered.
        """
        super().__init__(self._available)
        self.session_id = checked_id("session_id", secrets.token_hex(8) if session_id is None else session_id)
        self.interceptors: list[Interceptor] = []
        """Called with every message from the worker, before it is routed. For bridges."""
        self._config = config
        self._launch = launch
        self._durability = durability
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._task_owner = TaskOwner(self.session_id)
        self._record: MemoryJournal | Journal = MemoryJournal(
            keep_all=durability.recovery == "replay", keep_none=durability.recovery == "none"
        )
        self._queue = ExecutionQueue(
            config,
            self._task_owner,
            capabilities or {},
            on_output,
            on_input,
            SessionCallbacks(
                lambda: self._worker().connection,
                lambda: self._record,
                lambda execution, last, final: self._recorder.ended(execution, last, final),  # noqa: PLW0108 - none yet
                self._on_record_failure,
                lambda execution_id, text: self._recorder.diverged.update({execution_id: text}),
            ),
        )
        self._keep(self._record)
        self._state = SessionState.STARTING
        self._incarnation: WorkerHandle | None = None
        self._incarnations = 0
        self._prefix = f"{secrets.token_hex(4)}-"
        self._submitted = 0
        self._starting = asyncio.Lock()
        self._recovery_task: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._recoveries: list[Recovery] = []
        self._why_dead: Exception | None = None
        self._closing: asyncio.Task[None] | None = None

    def _keep(self, record: MemoryJournal | Journal) -> None:
        policy = self._durability.recovery
        self._record = record
        self._checkpoints = CheckpointScheduler(
            self._task_owner,
            record,
            lambda: self._incarnation if self._state is SessionState.READY else None,
            lambda: (self._queue.last_seq, self._queue.oldest is not None),
            on_trouble=lambda text: self._recorder.notices.append(text),  # noqa: PLW0108 - there is none yet
            automatic=policy in ("auto", "checkpoint"),
            eager=policy == "checkpoint",
            max_bytes=self._config.max_checkpoint_bytes,
        )
        self._recorder = ExecutionRecorder(
            self._task_owner,
            record,
            self._queue,
            lambda duration, final: self._checkpoints.ended(duration, urgent=final),
        )

    # --- beginning -----------------------------------------------------------------------------------

    async def begin(self) -> Self:
        """Open the record, start a worker, bring back what is on record. For whoever made the session.

        Raises:
            SpawnError: there is no worker to be had.
            StoreError: the record cannot be opened or read.
        """
        opening = self._durability.open_journal
        started = self._loop.time()
        if opening is not None:
            self._keep(await opening(self.session_id, self._on_lost))
        await self._start_worker()
        await self._bring_back(started)
        return self

    async def _bring_back(self, started: float) -> None:
        """Go on from what is on record since an opening at `started`: from nothing, here. See `Survival`."""
        self._expect_starting()
        self._serve()

    async def _start_worker(self) -> None:
        """Have a worker that is ready, and empty."""
        self._incarnations += 1
        hello = Hello(
            protocol=PROTOCOL,
            session_id=self.session_id,
            incarnation=self._incarnations,
            config=self._config.executor,
            capabilities=self._queue.calls.specs,
        )
        try:
            while not await self._greet(hello):
                pass
        except BaseException:
            if self._recovery_task is None:
                self._give_up_start()
            raise
        self._expect_starting()

    async def _greet(self, hello: Hello) -> bool:
        """Have a worker, and wait until it is ready; say whether it is.

        It is not when it had waited in a pool and died there: there may be another.
        """
        self._expect_starting()
        worker = self._launch(self._config)
        waited = bool(worker.pipes.greeting_sent)
        incarnation = self._incarnation = WorkerHandle(
            worker,
            hello,
            self._queue,
            self.interceptors,
            self._context,
            self._on_end,
            self._config.stall_timeout,
        )
        try:
            await incarnation.wait_ready(self._config.spawn_timeout)
        except SpawnError:
            if not waited:
                raise
            return False
        except BaseException:
            await wait_uncancelled(self._loop.create_task(incarnation.destroy("its start was given up")))
            raise
        watch_tree(incarnation.connection, self._config, self._queue.busy)
        return True

    def _serve(self) -> None:
        self._move(SessionState.READY)
        self._queue.open()

    # --- its worker's death --------------------------------------------------------------------------

    def _on_end(self, incarnation: WorkerHandle) -> None:
        if incarnation is not self._incarnation:
            return
        if self._state is SessionState.STARTING:
            # It died while it was being filled; whoever fills it hears of it.
            incarnation.requests.fail_all(incarnation.died_error)
            self._queue.abandon(incarnation.died_error)
            return
        if self._state is not SessionState.READY:
            return
        self._lost(incarnation)

    def _lost(self, incarnation: WorkerHandle) -> None:
        """The worker has died: so has the session, here. See `Survival`."""
        self._move(SessionState.DEAD)
        self._abandon(incarnation.died_error)

    def _die(self, error: PyRepl3Error) -> None:
        self._why_dead = error
        if self._recovery_task is asyncio.current_task():
            # It does not come back, and nobody is to wait for that.
            self._recovery_task = None
        if self._state in (SessionState.STARTING, SessionState.READY):
            self._move(SessionState.DEAD)
        self._recorder.abandon_all()
        self._abandon(lambda _: _fresh_copy(error))

    def _on_record_failure(self, execution_id: str, error: StoreError) -> None:
        if self._queue.find(execution_id) is not None and self._incarnation is not None:
            self._recorder.fail(execution_id, error)
            self._incarnation.connection.end(f"what execution {execution_id!r} asked could not be recorded")

    def _on_lost(self, error: StoreError) -> None:
        """Another process owns the session now: nothing more may happen here."""
        if self._state in (SessionState.STARTING, SessionState.READY):
            if self._recovery_task is not None:
                self._recovery_task.cancel()
            self._checkpoints.stop()
            self._die(error)
            if self._incarnation is not None:
                self._incarnation.connection.end("its session has another owner now")

    # --- restarting ----------------------------------------------------------------------------------

    async def restart(self) -> None:
        """End the worker, whatever it does, and start a fresh one with an empty namespace.

        What is in flight fails with WorkerDied. What ran before is not brought back any more; recorded
        outcomes stay.

        Raises:
            SessionClosed: the session is closed.
            SpawnError: no new worker is to be had; the session stays dead.
            StoreError: the restart cannot be recorded.
        """
        async with self._starting:
            if self._recovery_task is not None:
                await _cancelled(self._recovery_task)
            if self._state not in (SessionState.READY, SessionState.DEAD, SessionState.STARTING):
                raise self._unusable()
            if self._state is not SessionState.STARTING:
                self._move(SessionState.STARTING)
            old = self._worker()
            self._give_up_flight(old)
            try:
                await old.stop("restart", self._config.close_grace)
            except BaseException:
                await wait_uncancelled(self._loop.create_task(old.destroy("a restart was given up")))
                self._give_up_start()
                raise
            self._expect_starting()
            self._checkpoints.forget()
            try:
                await self._record.save(SavedCheckpoint(RESET, self._queue.last_seq, b"", ()), {})
            except StoreError as error:
                self._die(error)
                raise
            await self._start_worker()
            self._serve()

    def _give_up_flight(self, old: WorkerHandle) -> None:
        """End what is in flight for good: it does not come back with the session."""
        running = self._queue.running
        why = "the session was restarted"
        old.requests.fail_all(lambda: old.died_error(running, why))
        self._queue.suspend()
        certificate = DeathCertificate(
            cause=why, pid=old.pid, incarnation=old.number, running=running, reason=why
        )
        rejection = Rejected("worker_died", old.died_error(running, why).what, certificate)
        for execution in self._queue.waiting:
            self._recorder.reject(execution, rejection)

    # --- ending --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the session and everything that belongs to it. Idempotent; `open_session` calls it.

        What is in flight fails with SessionClosed; in a store it stays, and goes on when the session is
        opened again. The running cell is cancelled, and has until `close_grace` is over for what it does
        about that (`finally`). Host functions are cancelled and waited for.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name=f"close {self.session_id}")
        await wait_uncancelled(self._closing)

    async def _close(self) -> None:
        grace = self._config.close_grace
        if self._recovery_task is not None:
            await _cancelled(self._recovery_task)
        await self._save_last()
        if self._recovery_task is not None:
            # The worker died under the last checkpoint.
            await _cancelled(self._recovery_task)
        if self._state is not SessionState.DEAD:
            try:
                await self._recorder.exempt_next_death()
            except StoreError as error:
                _logger.warning("session %r: its close counts as a death: %s", self.session_id, error)
        self._move(SessionState.CLOSING)
        self._checkpoints.stop()
        self._recorder.abandon_all()
        self._abandon(lambda _: SessionClosed(f"session {self.session_id!r} was closed"))
        try:
            if self._incarnation is not None:
                await self._incarnation.stop("the session was closed", grace)
            await self._queue.close(grace)
            await self._task_owner.close(grace)
        finally:
            try:
                if not isinstance(self._record, MemoryJournal):
                    await self._record.close()
            finally:
                self._move(SessionState.CLOSED)

    async def _save_last(self) -> None:
        """Save what ran since the last checkpoint, so that nothing has to be run again next time."""
        idle = self._state is SessionState.READY and self._queue.oldest is None
        automatic = self._durability.recovery in ("auto", "checkpoint")
        if isinstance(self._record, MemoryJournal) or not (idle and automatic and self._checkpoints.dirty):
            return
        try:
            await self._checkpoints.save_last(_FINAL_SAVE)
        except PyRepl3Error as error:
            _logger.warning("session %r has no checkpoint of its end: %s", self.session_id, error)

    # --- odds and ends -------------------------------------------------------------------------------

    def _move(self, state: SessionState) -> None:
        self._state = move_session(self._state, state)

    def _give_up_start(self) -> None:
        # It may be closing by now.
        if self._state is SessionState.STARTING:
            self._move(SessionState.DEAD)

    def _expect_starting(self) -> None:
        if self._state is not SessionState.STARTING:
            raise self._unusable()

    def _worker(self) -> WorkerHandle:
        if self._incarnation is None:
            raise SpawnError(f"session {self.session_id!r} has no worker")
        return self._incarnation

    async def _available(self) -> WorkerHandle:
        """Give the worker; while the session is coming back, wait for it."""
        while self._recovery_task is not None:
            await asyncio.wait([self._recovery_task])
        if self._state is not SessionState.READY:
            raise self._unusable()
        return self._worker()

    def _unusable(self) -> Exception:
        if self._state in (SessionState.CLOSING, SessionState.CLOSED):
            return SessionClosed(f"session {self.session_id!r} is closed")
        if self._why_dead is not None and self._state is SessionState.DEAD:
            return _fresh_copy(self._why_dead)
        if self._state is SessionState.STARTING:
            return WorkerDied(f"session {self.session_id!r} is getting a new worker and has none yet")
        if self._incarnation is None:
            return WorkerDied(f"session {self.session_id!r} has no worker")
        return self._incarnation.died_error(reason="restart() gives the session a fresh one")

    def _abandon(self, error: Callable[[tuple[str, ...]], BaseException]) -> None:
        """Fail all that waits for the worker, each with an error of its own."""
        running = self._queue.running
        if self._incarnation is not None:
            self._incarnation.requests.fail_all(lambda: error(running))
        self._queue.fail_all(lambda: error(running))


def _fresh_copy(error: Exception) -> Exception:
    """Give an error for another who waits: one exception object must not be raised twice at once."""
    return type(error)(*error.args)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


_SPAWN_ATTEMPTS: Final = 3
_IDLE_DEATHS: Final = 10
"""Deaths in a row, while nothing runs, that are enough: what is brought back may be what kills."""
_IN_A_ROW: Final = 60.0
"""Seconds from one such death to the next; what comes later has nothing to do with it."""


def _final_error(error: SpawnError | StoreError) -> SpawnError | StoreError:
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
            self._queue.suspend()
            await self._recover_into(None, started, fresh=True)
        else:
            self._serve()
        for index, entry in enumerate(pending):
            execution = Execution(
                self._queue,
                entry.execution_id,
                entry.spec,
                entry.spec.timeout or self._config.executor.max_execution_time,
                None,
                None,
                check=None,
                keep=True,
            )
            await self._recorder.resume(entry, execution, self._durability.max_attempts, ran=index == 0)

    def _lost(self, incarnation: WorkerHandle) -> None:
        """The worker has died: begin to come back in another."""
        if self._durability.recovery == "none":
            super()._lost(incarnation)
            return
        running = self._queue.running
        certificate = incarnation.exit_report(running, self._config.executor.max_memory_usage)
        self._move(SessionState.STARTING)
        incarnation.requests.fail_all(lambda: incarnation.died_error(running))
        interrupted = self._queue.suspend()
        task = self._loop.create_task(
            self._recover(certificate, interrupted), name=f"recovery of {self.session_id}"
        )
        self._recovery_task = task
        task.add_done_callback(self._recovery_done)

    def _recovery_done(self, task: asyncio.Task[None]) -> None:
        if self._recovery_task is task:
            self._recovery_task = None
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a session could not come back", "exception": task.exception(), "task": task}
            )

    async def _recover(self, certificate: DeathCertificate, interrupted: Interrupted) -> None:
        started = self._loop.time()
        if self._too_many_idle_deaths(certificate):
            what = (
                f"{self._idle_deaths} workers of session {self.session_id!r} died one after the other while "
                "nothing ran, so it gets no other; restart() gives it one with an empty namespace"
                f"{', opening it again one with what is on record' if self._durability.open_journal else ''}"
            )
            self._idle_deaths = 0
            self._die(make_worker_died(what, certificate))
            return
        try:
            await self._decide_interrupted(certificate, interrupted)
            await self._recover_into(certificate, started)
        except (SpawnError, StoreError) as error:
            _logger.error(  # noqa: TRY400 - the error says it all
                "session %r could not come back: %s", self.session_id, error
            )
            if self._state is SessionState.STARTING:
                self._die(_final_error(error))

    def _too_many_idle_deaths(self, certificate: DeathCertificate) -> bool:
        """Count a worker that has died; say whether too many have while there was nothing to do."""
        (seq, then), now = self._last_death, self._loop.time()
        if seq != self._queue.last_seq or now - then > _IN_A_ROW:
            self._idle_deaths = 0
        self._idle_deaths = 0 if certificate.running else self._idle_deaths + 1
        self._last_death = self._queue.last_seq, now
        return self._idle_deaths >= _IDLE_DEATHS

    async def _decide_interrupted(self, certificate: DeathCertificate, interrupted: Interrupted) -> None:
        """Decide about what the death has interrupted: it ends here, or is run again."""
        ended: set[str] = set()
        for execution, reason in interrupted.stopped:
            ended.add(execution.execution_id)
            self._recorder.stop(execution, reason)
        first = interrupted.first
        if first is None or first.execution_id in ended:
            return
        failure = self._recorder.failure_of(first)
        if failure is not None:
            self._recorder.abandon(first, failure)
            return
        attempts = await self._record.add_death(first.execution_id)
        # Over a limit in a fresh worker too, it needs no third: it was not what ran before it.
        most = self._durability.max_attempts
        if attempts >= (min(most, 2) if certificate.over_limit else most):
            what = f"worker {certificate.pid} of session {self.session_id!r} died"
            self._recorder.reject(first, Rejected("worker_died", what, certificate, attempts))
        else:
            first.attempts = attempts + 1

    async def _recover_into(
        self, certificate: DeathCertificate | None, started: float, *, fresh: bool = False
    ) -> None:
        """Fill a new worker (`fresh`: the one that is there) until one holds, and go on in it."""
        replay = Replay(
            self._queue,
            self._record,
            self._checkpoints,
            self._durability.recovery,
            self._durability.max_attempts,
            self._recorder.diverged,
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
                await replay.run(incarnation)
            except (WorkerDied, WorkerUnresponsive, ProtocolError) as error:
                # It died under it, is stuck, or could not bring back what it was given: another one may.
                await incarnation.destroy(f"it did not bring the namespace back: {truncated(str(error))}")
                replay.count_failure()
                continue
            break
        self._expect_starting()
        report = Recovery(
            cause=certificate,
            incarnation=incarnation.number,
            restored_from=replay.restored_from,
            replayed=tuple(replay.replayed),
            lost=tuple(replay.lost.values()),
            skipped=replay.skips,
            remade=tuple(replay.remade.items()),
            seconds=self._loop.time() - started,
        )
        self._recoveries.append(report)
        if certificate is not None or report.lost or report.skipped or report.remade:
            self._recorder.notices.append(str(report))
        if replay.replayed:
            self._checkpoints.refilled()
        self._serve()
        # A task of its own: the handler may ask the session something, which has come back by now.
        self._task_owner.start(self._report(report), "on_recovery")

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
