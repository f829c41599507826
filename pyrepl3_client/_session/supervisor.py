"""The supervisor of a session: the state machine of its workers, recoveries, restarts and its end."""

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial

import msgspec

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._execution.handlers import Handlers
from pyrepl3_client._execution.queue import Capabilities, ExecutionQueue, Interrupted, SessionCallbacks
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._journal.outcomes import Rejected
from pyrepl3_client._journal.protocol import RESET, Journal, Record, SavedCheckpoint
from pyrepl3_client._launch.worker import Launch
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._session.confinement_level import RecordedLevel
from pyrepl3_client._session.death_policy import (
    MAX_SPAWN_FAILURES,
    DeathPolicy,
    SessionFate,
    idle_deaths_error,
    recovery_failed_error,
)
from pyrepl3_client._session.journal_recorder import JournalRecorder
from pyrepl3_client._session.memory_recorder import MemoryRecorder
from pyrepl3_client._session.options import Durability
from pyrepl3_client._session.own_directory import OwnDirectory
from pyrepl3_client._session.recorder import OutcomeDelivery, Recorder
from pyrepl3_client._session.recovery import ExecutionTroubles, RecoveryRunner
from pyrepl3_client._session.recovery_report import Recovery
from pyrepl3_client._session.variables import set_variables
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._text import truncated
from pyrepl3_client._wire.connection import Connection, Interceptor
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import (
    DeathCertificate,
    PyRepl3Error,
    SessionClosed,
    SpawnError,
    StoreError,
    WorkerDied,
)
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.lifecycle import SessionState, move_session
from pyrepl3_schemas.messages import Error, Hello, Offer, Result, Withdraw

type _MakeRecorder = Callable[[ExecutionQueue, CheckpointScheduler, OutcomeDelivery], Recorder]


class SessionSupervisor:
    """Starts the workers of one session, notices their deaths, brings the session back, ends it."""

    def __init__(
        self,
        session_id: str,
        config: WorkerConfig,
        launch: Launch,
        capabilities: Capabilities,
        handlers: Handlers,
        durability: Durability,
        journal: Journal | None,
        own_directory: OwnDirectory | None,
        telemetry: Telemetry,
    ) -> None:
        """Record in `journal`, or in memory. There is no worker yet: see `open_supervisor`.

        Raises:
            CapabilityError: a capability cannot be offered.
        """
        self.session_id = session_id
        self.state = SessionState.STARTING
        self.worker: WorkerHandle | None = None
        """The present worker, or the last one."""
        self.recoveries: list[Recovery] = []
        self.recovery_task: asyncio.Task[None] | None = None
        self.interceptors: list[Interceptor] = []
        self._config = config
        self._launch = launch
        self._durability = durability
        self.own_directory = own_directory
        self.telemetry = telemetry
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._task_owner = TaskOwner(session_id)
        self._notices: list[str] = []
        """What the next result tells its owner."""
        self._diverged: dict[str, str] = {}
        """Executions that asked for something else than their record holds, and for what."""
        self._unrecorded: dict[str, StoreError] = {}
        """Executions whose call or prompt could not be recorded: each has to end with its error."""
        self.record, make_recorder = self._choose_recorder(journal)
        self.queue = ExecutionQueue(
            config,
            self._task_owner,
            capabilities,
            handlers,
            # The queue and the recorder need each other: the queue is there first, and finds it here.
            SessionCallbacks(
                self._connection,
                self.record,
                self._on_execution_ended,
                self._on_record_failure,
                lambda data: set_variables(self.require_worker(), data),
                self._diverged.__setitem__,
                lambda: None if self.worker is None else self.worker.cpu_seconds(),
                telemetry,
            ),
        )
        self.checkpoints = CheckpointScheduler(
            self._task_owner,
            self.record,
            self.queue,
            self._ready_worker_or_none,
            on_trouble=self._notices.append,
            telemetry=telemetry,
            automatic=durability.recovery in ("auto", "checkpoint"),
            eager=durability.recovery == "checkpoint",
            max_bytes=config.max_checkpoint_bytes,
            unusable_error=self.unusable_error,
        )
        self.recorder = make_recorder(
            self.queue, self.checkpoints, OutcomeDelivery(self._notices, self._diverged)
        )
        self._workers_started = 0
        self._restarting = asyncio.Lock()
        self._policy = DeathPolicy(durability.recovery, durability.max_attempts)
        self._recovery = RecoveryRunner(
            session_id,
            self.queue,
            self.checkpoints,
            self.recorder,
            self.record,
            durability,
            self._policy,
            ExecutionTroubles(self._diverged, self._unrecorded),
            self._start_worker,
            self._clear_own_directory,
            self._tell_recovery,
            telemetry,
        )
        self._why_dead: Exception | None = None
        self._closing: asyncio.Task[None] | None = None

    def _choose_recorder(self, journal: Journal | None) -> tuple[Record, _MakeRecorder]:
        """Return what the session is recorded in, and how its recorder is made."""
        recovery = self._durability.recovery
        if journal is None:
            memory = MemoryJournal(keep_all=recovery == "replay", keep_none=recovery == "none")
            return memory, partial(MemoryRecorder, memory, telemetry=self.telemetry)
        return journal, partial(
            JournalRecorder,
            journal,
            task_owner=self._task_owner,
            telemetry=self.telemetry,
            config=self._config,
            max_attempts=self._durability.max_attempts,
        )

    # --- opening -------------------------------------------------------------------------------------

    async def start(self, opening_began: float, level: RecordedLevel | None) -> None:
        """Start a worker and bring back what is on record; on failure leave nothing behind.

        Args:
            opening_began: when the opening of the session began, in seconds of the loop's clock.
            level: the confinement level on record, if the session has a store.

        Raises:
            SpawnError: no worker can be started.
            StoreError: the record cannot be read.
        """
        try:
            await self._start_first_worker()
            if level is not None:
                await level.put_in_force(self._config, self.require_worker().ready)
            await self._resume_from_record(opening_began)
        except BaseException:
            await self.close()
            raise

    async def _start_first_worker(self) -> None:
        for _ in range(MAX_SPAWN_FAILURES - 1):
            try:
                await self._start_worker()
            except SpawnError as error:
                if error.signal is None or error.reason:
                    raise  # the next one would fail in the same way
            else:
                return
        await self._start_worker()

    async def _resume_from_record(self, opening_began: float) -> None:
        if self._durability.recovery == "none":
            await self._clear_own_directory()
            self._become_ready()
            return
        history = await self.record.load()
        unfinished = [entry for entry in history.entries if entry.status == "started"]
        if history.checkpoint is not None or len(unfinished) < len(history.entries):
            self.queue.suspend()
            await self._refill(None, opening_began, self.require_worker())
        else:
            await self._clear_own_directory()
            self._become_ready()
        await self.recorder.resume(unfinished)

    # --- workers -------------------------------------------------------------------------------------

    async def _start_worker(self) -> WorkerHandle:
        """Start a worker, and wait until it is ready; its namespace is empty."""
        self._workers_started += 1
        hello = Hello(
            protocol=PROTOCOL,
            session_id=self.session_id,
            incarnation=self._workers_started,
            # The client keeps the time; see `TimeLimit`.
            config=msgspec.structs.replace(self._config.executor, max_execution_time=None),
            work_directory="" if self.own_directory is None else self.own_directory.prepare(),
            report=list(self._config.report),
            max_rest_bytes=self._config.max_spill_bytes,
        )
        while not await self._launch_worker(hello):
            pass
        self._require_starting()
        return self.require_worker()

    def offer(self, capabilities: Capabilities) -> None:
        """Offer host functions from now on; see `Session.offer`."""
        for spec in self.queue.calls.offer(capabilities):
            self._tell_worker(Offer(spec.name, spec.signature, spec.doc, spec.awaitable))

    def withdraw(self, names: Iterable[str]) -> None:
        """Take host functions back; see `Session.withdraw`."""
        for name in names:
            self.queue.calls.withdraw(name)
            self._tell_worker(Withdraw(name))

    def _tell_worker(self, message: Offer | Withdraw) -> None:
        """Tell the worker, if there is one, whatever holds its loop; the next one learns it by `hello`."""
        if self.worker is not None and self.worker.alive and not self.worker.connection.killed:
            self.worker.connection.send(message)
            if self.queue.first is not None:
                self.worker.connection.wake()

    async def _launch_worker(self, hello: Hello) -> bool:
        """Launch one worker; return whether it got ready.

        It does not when it had waited in a pool and died there: then another may.
        """
        self._require_starting()
        launched = self._launch(self._config)
        hello = msgspec.structs.replace(hello, capabilities=self.queue.calls.specs)
        had_waited = bool(launched.pipes.greeting_sent)
        worker = self.worker = WorkerHandle(
            launched,
            hello,
            self.queue,
            self.interceptors,
            self._context,
            self._on_worker_exit,
            self._config,
            self.telemetry,
        )
        try:
            await worker.wait_ready()
        except SpawnError:
            if not had_waited:
                raise
            return False
        except BaseException:
            await wait_uncancelled(self._loop.create_task(worker.kill("its start was given up")))
            raise
        return True

    async def _clear_own_directory(self) -> None:
        """Let a session that begins with an empty namespace begin with an empty directory too."""
        if self.own_directory is not None:
            await self._task_owner.run_in_thread("clear", self.own_directory.clear)

    def _become_ready(self) -> None:
        self._require_starting()
        self._move(SessionState.READY)
        worker = self.require_worker()
        if worker.alive:
            self.queue.open()
        else:
            # It died after its last answer, when no request waited for one.
            self._on_worker_exit(worker)

    # --- a worker's death ----------------------------------------------------------------------------

    def _on_worker_exit(self, worker: WorkerHandle) -> None:
        if worker is not self.worker:
            return
        if self.state is SessionState.STARTING:
            # It died while it was being filled: the task that fills it gets the error.
            worker.requests.end(worker.died_error)
            self.queue.abandon(worker.died_error)
            return
        if self.state is not SessionState.READY:
            return
        running = self.queue.running
        certificate = worker.exit_report(running)
        match self._policy.session_fate(certificate, self.queue.last_number, self._loop.time()):
            case SessionFate.STAY_DEAD:
                self._move(SessionState.DEAD)
                self._recovery.record_ends(worker.died_error(running), self.queue.suspend())
                self._end_waits(lambda _: worker.died_error(running), but_ended=True)
            case SessionFate.GIVE_UP:
                worker.requests.end(worker.died_error)
                stored = self._durability.open_journal is not None
                self._mark_dead(idle_deaths_error(self.session_id, certificate, reopenable=stored))
            case SessionFate.RECOVER:
                self._move(SessionState.STARTING)
                worker.requests.end(lambda: worker.died_error(running))
                interrupted = self.queue.suspend()
                self.recovery_task = self._loop.create_task(
                    self._recover(certificate, interrupted), name=f"recovery of {self.session_id}"
                )
                self.recovery_task.add_done_callback(self._recovery_done)

    def _mark_dead(self, error: PyRepl3Error) -> None:
        """The session has no worker and gets none: all that waits for one fails with `error`."""
        self._why_dead = error
        if self.recovery_task is asyncio.current_task():
            # It does not come back, so nothing may wait for that.
            self.recovery_task = None
        if self.state in (SessionState.STARTING, SessionState.READY):
            self._move(SessionState.DEAD)
        self._end_waits(lambda _: _fresh_copy(error))

    def _on_record_failure(self, execution_id: str, error: StoreError) -> bool:
        if self.queue.find(execution_id) is None or self.worker is None:
            return False
        self._unrecorded[execution_id] = error
        self.telemetry.store_trouble("a call could not be recorded", error, execution_id=execution_id)
        self.worker.connection.kill(f"what execution {execution_id!r} asked could not be recorded")
        return True

    def on_lease_lost(self, error: StoreError) -> None:
        """Another process owns the session now: nothing more may happen here."""
        if self.state in (SessionState.STARTING, SessionState.READY):
            if self.recovery_task is not None:
                self.recovery_task.cancel()
            self.checkpoints.stop()
            self.telemetry.store_trouble("the session has another owner", error, lost=True)
            self._mark_dead(error)
            if self.worker is not None:
                self.worker.connection.kill("its session has another owner now")

    # --- recovery ------------------------------------------------------------------------------------

    async def _recover(self, certificate: DeathCertificate, interrupted: Interrupted) -> None:
        started = self._loop.time()
        try:
            await self._recovery.settle_interrupted(certificate, interrupted)
            await self._refill(certificate, started, None)
        except (SpawnError, StoreError) as error:
            self._recovery.announce_failure(error, started)
            if self.state is SessionState.STARTING:
                self._mark_dead(recovery_failed_error(error))

    def _recovery_done(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not task.cancelled():
            self._loop.call_exception_handler(
                {"message": "a session could not come back", "exception": error, "task": task}
            )
        if self.recovery_task is not task:
            return  # what has interrupted it goes on from here
        self.recovery_task = None
        if self.state is SessionState.STARTING:
            self._mark_dead(
                WorkerDied(
                    f"the recovery of session {self.session_id!r} ended with {error!r}; restart() gives it a "
                    "fresh worker with an empty namespace"
                )
            )

    async def _interrupt_recovery(self) -> None:
        """Give a recovery up; the caller goes on from where it was."""
        task, self.recovery_task = self.recovery_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _refill(
        self, certificate: DeathCertificate | None, began: float, worker: WorkerHandle | None
    ) -> None:
        """Bring the namespace back, in `worker` or a new one, take executions again, and report."""
        report = await self._recovery.refill(certificate, began, worker)
        self._require_starting()
        self.recoveries.append(report)
        if report.tells_something:
            self._notices.append(str(report))
        self._become_ready()
        # A task of its own: the handler may ask the session something, which has come back by now.
        self._tell_recovery(report)

    def _tell_recovery(self, report: Recovery) -> None:
        self._task_owner.start(self._recovery.call_handler(report), "on_recovery")

    # --- restarting ----------------------------------------------------------------------------------

    async def restart(self) -> None:
        """End the worker, and start a fresh one with an empty namespace. See `Session.restart`."""
        async with self._restarting:
            try:
                await self._restart()
            except Exception as error:
                if self.state in (SessionState.CLOSING, SessionState.CLOSED):
                    raise self.unusable_error() from error
                raise

    async def _restart(self) -> None:
        # While it is opened nothing of it is there to restart.
        if self.state not in (SessionState.READY, SessionState.DEAD) and not self.recovering:
            raise self.unusable_error()
        if self.state is not SessionState.STARTING:
            self._move(SessionState.STARTING)
        self._why_dead = None
        old = self.require_worker()
        try:
            await self._interrupt_recovery()
            self._require_starting()
            self._reject_in_flight(old)
            await old.stop("restart", self._config.close_grace)
            self._require_starting()
            self.checkpoints.reset()
            await self.record.save(SavedCheckpoint(RESET, self.queue.last_number, b"", ()), {})
            await self._clear_own_directory()
            await self._start_worker()
            self._become_ready()
        except BaseException as error:
            if self.state is SessionState.STARTING:
                # Nothing else goes on from here.
                what = f"a restart of session {self.session_id!r} was given up ({truncated(repr(error))})"
                given_up = WorkerDied(f"{what}; restart() gives it a fresh worker")
                self._mark_dead(error if isinstance(error, StoreError) else given_up)
                if self.require_worker().alive:
                    killing = self.require_worker().kill("a restart was given up")
                    await wait_uncancelled(self._loop.create_task(killing))
            raise

    def _reject_in_flight(self, old: WorkerHandle) -> None:
        """Reject what is under way: it does not come back with the session."""
        running = self.queue.running
        why = "the session was restarted"
        old.requests.end(lambda: old.died_error(running, why))
        self.queue.suspend()
        certificate = DeathCertificate(
            cause=why, pid=old.pid, incarnation=old.number, running=running, reason=why
        )
        rejection = Rejected("worker_died", old.died_error(running, why).what, certificate)
        for execution in self.queue.waiting:
            self.recorder.reject(execution, rejection)

    # --- ending --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the session and everything that belongs to it. Idempotent; see `Session.close`."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name=f"close {self.session_id}")
        await wait_uncancelled(self._closing)

    async def _close(self) -> None:
        grace = self._config.close_grace
        async with AsyncExitStack() as rest:
            # The last one first, and each whatever those before it came to.
            rest.callback(self._move, SessionState.CLOSED)
            rest.push_async_callback(self.recorder.close)
            rest.push_async_callback(self._task_owner.close, grace)
            rest.push_async_callback(self._remove_own_directory)
            rest.push_async_callback(self.queue.close, grace)
            rest.push_async_callback(self._stop_worker)
            rest.callback(self._begin_closing)
            await self._interrupt_recovery()
            await self._save_last()
            # The worker may have died under the last checkpoint.
            await self._interrupt_recovery()
            if self.state is not SessionState.DEAD:
                try:
                    await self.recorder.exempt_next_death()
                except StoreError as error:
                    self.telemetry.store_trouble("its close counts as a death", error)

    def _begin_closing(self) -> None:
        self._move(SessionState.CLOSING)
        self.checkpoints.stop()
        closed = f"session {self.session_id!r} was closed"
        self._end_waits(lambda _: SessionClosed(closed))

    async def _stop_worker(self) -> None:
        if self.worker is not None:
            await self.worker.stop("the session was closed", self._config.close_grace)

    async def _remove_own_directory(self) -> None:
        if self.own_directory is not None:
            await self._task_owner.run_in_thread("remove", self.own_directory.remove)

    async def _save_last(self) -> None:
        if self.state is not SessionState.READY or self.queue.oldest is not None:
            return
        try:
            await self.recorder.save_last()
        except PyRepl3Error as error:
            self.checkpoints.announce_failure(error)

    def kill_worker(self) -> None:
        """Kill the worker, from any thread and without waiting: the program ends, and this was not closed."""
        if self.worker is not None and not self.worker.connection.exited.done():
            process = self.worker.connection.worker
            process.kill()
            process.kill_outermost()

    # --- states, and what is usable in them ----------------------------------------------------------

    def _move(self, state: SessionState) -> None:
        self.state = move_session(self.state, state)

    def _require_starting(self) -> None:
        if self.state is not SessionState.STARTING:
            raise self.unusable_error()

    def require_worker(self) -> WorkerHandle:
        """Return the present worker, or the last one.

        Raises:
            SpawnError: there has been none.
        """
        if self.worker is None:
            raise SpawnError(f"session {self.session_id!r} has no worker")
        return self.worker

    @property
    def recovering(self) -> bool:
        """Whether the session is coming back: executions are taken, and wait for that."""
        return self.state is SessionState.STARTING and self.recovery_task is not None

    async def ready_worker(self) -> WorkerHandle:
        """Return the worker that takes executions; during a recovery, wait for it.

        Raises:
            WorkerDied, StoreError, SessionClosed: there is none, and none is coming.
        """
        while self.recovery_task is not None:
            await asyncio.wait([self.recovery_task])
        if self.state is not SessionState.READY:
            raise self.unusable_error()
        return self.require_worker()

    def unusable_error(self) -> Exception:
        """Return the error that says why the session takes nothing in its present state."""
        if self.state in (SessionState.CLOSING, SessionState.CLOSED):
            return SessionClosed(f"session {self.session_id!r} is closed: {self._durability.how_to_go_on}")
        if self._why_dead is not None and self.state is SessionState.DEAD:
            return _fresh_copy(self._why_dead)
        if self.state is SessionState.STARTING:
            return WorkerDied(f"session {self.session_id!r} is getting a new worker and has none yet")
        if self.worker is None:
            return WorkerDied(f"session {self.session_id!r} has no worker")
        return self.worker.died_error(reason="restart() gives the session a fresh one")

    def _end_waits(
        self, error: Callable[[tuple[str, ...]], BaseException], *, but_ended: bool = False
    ) -> None:
        """End all that callers wait for, each with its own error; or all but outcomes to be recorded."""
        running = self.queue.running
        if self.worker is not None:
            self.worker.requests.end(lambda: error(running))
        self.queue.fail_all(lambda: error(running), self.recorder.let_go(but_ended=but_ended))

    # --- what the queue and the scheduler ask --------------------------------------------------------

    def _connection(self) -> Connection:
        return (self.worker or self.require_worker()).connection

    def _on_execution_ended(self, execution: ExecutionRecord, last: Result | Error, final: bool) -> None:  # noqa: FBT001
        try:
            self.recorder.execution_ended(execution, last, final)
        except BaseException as error:
            execution.fail(
                StoreError(f"the outcome of execution {execution.execution_id!r} was not recorded: {error!r}")
            )
            raise

    def _ready_worker_or_none(self) -> WorkerHandle | None:
        return self.worker if self.state is SessionState.READY else None


def _fresh_copy(error: Exception) -> Exception:
    """Copy an error for another who waits: one exception object must not be raised twice at once."""
    return type(error)(*error.args)
