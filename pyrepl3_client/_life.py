"""A session's life: its record, its workers, its restarts, its end. `Survival` makes it outlive deaths."""

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable
from typing import Final, Self

from pyrepl3_client._connection import Interceptor
from pyrepl3_client._deaths import DeathCertificate
from pyrepl3_client._durability import Backoff, Durability
from pyrepl3_client._execution import InputHandler, OutputHandler
from pyrepl3_client._flight import Capabilities, Flight
from pyrepl3_client._hooks import Hooks
from pyrepl3_client._incarnation import Incarnation
from pyrepl3_client._journal import Journal, SavedCheckpoint
from pyrepl3_client._keeper import Keeper
from pyrepl3_client._memory import MemoryJournal
from pyrepl3_client._nursery import Nursery
from pyrepl3_client._outcomes import Rejected
from pyrepl3_client._patience import finish
from pyrepl3_client._questions import Questions, checked_id
from pyrepl3_client._rebuild import RESET
from pyrepl3_client._recovery import Recovery
from pyrepl3_client._saver import Saver
from pyrepl3_client._tree_watch import watch_tree
from pyrepl3_client._worker import Launch
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import PyRepl3Error, SessionClosed, SpawnError, StoreError, WorkerDied
from pyrepl3_schemas.lifecycle import SessionState, move_session
from pyrepl3_schemas.messages import Hello
from pyrepl3_schemas.version import PROTOCOL

_logger: Final = logging.getLogger("pyrepl3_client")
_FINAL_SAVE: Final = 5.0
"""Most seconds that a last checkpoint may take at a session's end."""


class Life(Questions):
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
        self._nursery = Nursery(self.session_id)
        self._record: MemoryJournal | Journal = MemoryJournal(
            keep_all=durability.recovery == "replay", keep_none=durability.recovery == "none"
        )
        self._flight = Flight(
            config,
            self._nursery,
            capabilities or {},
            on_output,
            on_input,
            Hooks(
                lambda: self._worker().connection,
                lambda: self._record,
                lambda execution, last, final: self._keeper.ended(execution, last, final),  # noqa: PLW0108 - none yet
                self._on_record_failure,
                lambda execution_id, text: self._keeper.diverged.update({execution_id: text}),
            ),
        )
        self._keep(self._record)
        self._state = SessionState.STARTING
        self._incarnation: Incarnation | None = None
        self._incarnations = 0
        self._prefix = f"{secrets.token_hex(4)}-"
        self._submitted = 0
        self._starting = asyncio.Lock()
        self._coming_back: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._recoveries: list[Recovery] = []
        self._why_dead: Exception | None = None
        self._closing: asyncio.Task[None] | None = None

    def _keep(self, record: MemoryJournal | Journal) -> None:
        policy = self._durability.recovery
        self._record = record
        self._saver = Saver(
            self._nursery,
            record,
            lambda: self._incarnation if self._state is SessionState.READY else None,
            lambda: (self._flight.last_seq, self._flight.oldest is not None),
            on_trouble=lambda text: self._keeper.notices.append(text),  # noqa: PLW0108 - there is none yet
            automatic=policy in ("auto", "checkpoint"),
            eager=policy == "checkpoint",
            max_bytes=self._config.max_checkpoint_bytes,
        )
        self._keeper = Keeper(
            self._nursery,
            record,
            self._flight,
            lambda duration, final: self._saver.ended(duration, urgent=final),
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
            capabilities=self._flight.calls.specs,
        )
        try:
            while not await self._greet(hello):
                pass
        except BaseException:
            if self._coming_back is None:
                self._give_up_start()
            raise
        self._expect_starting()

    async def _greet(self, hello: Hello) -> bool:
        """Have a worker, and wait until it is ready; say whether it is.

        It is not when it had waited in a pool and died there: there may be another.
        """
        self._expect_starting()
        worker = self._launch(self._config)
        waited = bool(worker.ends.sent)
        incarnation = self._incarnation = Incarnation(
            worker,
            hello,
            self._flight,
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
            await finish(self._loop.create_task(incarnation.destroy("its start was given up")))
            raise
        watch_tree(incarnation.connection, self._config, self._flight.busy)
        return True

    def _serve(self) -> None:
        self._move(SessionState.READY)
        self._flight.open()

    # --- its worker's death --------------------------------------------------------------------------

    def _on_end(self, incarnation: Incarnation) -> None:
        if incarnation is not self._incarnation:
            return
        if self._state is SessionState.STARTING:
            # It died while it was being filled; whoever fills it hears of it.
            incarnation.requests.fail_all(incarnation.death)
            self._flight.abandon(incarnation.death)
            return
        if self._state is not SessionState.READY:
            return
        self._lost(incarnation)

    def _lost(self, incarnation: Incarnation) -> None:
        """The worker has died: so has the session, here. See `Survival`."""
        self._move(SessionState.DEAD)
        self._abandon(incarnation.death)

    def _die(self, error: PyRepl3Error) -> None:
        self._why_dead = error
        if self._coming_back is asyncio.current_task():
            # It does not come back, and nobody is to wait for that.
            self._coming_back = None
        if self._state in (SessionState.STARTING, SessionState.READY):
            self._move(SessionState.DEAD)
        self._keeper.forsake_all()
        self._abandon(lambda _: _again(error))

    def _on_record_failure(self, execution_id: str, error: StoreError) -> None:
        if self._flight.find(execution_id) is not None and self._incarnation is not None:
            self._keeper.fail(execution_id, error)
            self._incarnation.connection.end(f"what execution {execution_id!r} asked could not be recorded")

    def _on_lost(self, error: StoreError) -> None:
        """Another process owns the session now: nothing more may happen here."""
        if self._state in (SessionState.STARTING, SessionState.READY):
            if self._coming_back is not None:
                self._coming_back.cancel()
            self._saver.stop()
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
            if self._coming_back is not None:
                await _cancelled(self._coming_back)
            if self._state not in (SessionState.READY, SessionState.DEAD, SessionState.STARTING):
                raise self._unusable()
            if self._state is not SessionState.STARTING:
                self._move(SessionState.STARTING)
            old = self._worker()
            self._give_up_flight(old)
            try:
                await old.stop("restart", self._config.close_grace)
            except BaseException:
                await finish(self._loop.create_task(old.destroy("a restart was given up")))
                self._give_up_start()
                raise
            self._expect_starting()
            self._saver.forget()
            try:
                await self._record.save(SavedCheckpoint(RESET, self._flight.last_seq, b"", ()), {})
            except StoreError as error:
                self._die(error)
                raise
            await self._start_worker()
            self._serve()

    def _give_up_flight(self, old: Incarnation) -> None:
        """End what is in flight for good: it does not come back with the session."""
        running = self._flight.running
        why = "the session was restarted"
        old.requests.fail_all(lambda: old.death(running, why))
        self._flight.suspend()
        certificate = DeathCertificate(
            cause=why, pid=old.pid, incarnation=old.number, running=running, reason=why
        )
        rejection = Rejected("worker_died", old.death(running, why).what, certificate)
        for execution in self._flight.waiting:
            self._keeper.reject(execution, rejection)

    # --- ending --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the session and everything that belongs to it. Idempotent; `open_session` calls it.

        What is in flight fails with SessionClosed; in a store it stays, and goes on when the session is
        opened again. The running cell is cancelled, and has until `close_grace` is over for what it does
        about that (`finally`). Host functions are cancelled and waited for.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name=f"close {self.session_id}")
        await finish(self._closing)

    async def _close(self) -> None:
        grace = self._config.close_grace
        if self._coming_back is not None:
            await _cancelled(self._coming_back)
        await self._save_last()
        if self._coming_back is not None:
            # The worker died under the last checkpoint.
            await _cancelled(self._coming_back)
        if self._state is not SessionState.DEAD:
            try:
                await self._keeper.excuse()
            except StoreError as error:
                _logger.warning("session %r: its close counts as a death: %s", self.session_id, error)
        self._move(SessionState.CLOSING)
        self._saver.stop()
        self._keeper.forsake_all()
        self._abandon(lambda _: SessionClosed(f"session {self.session_id!r} was closed"))
        try:
            if self._incarnation is not None:
                await self._incarnation.stop("the session was closed", grace)
            await self._flight.close(grace)
            await self._nursery.close(grace)
        finally:
            try:
                if not isinstance(self._record, MemoryJournal):
                    await self._record.close()
            finally:
                self._move(SessionState.CLOSED)

    async def _save_last(self) -> None:
        """Save what ran since the last checkpoint, so that nothing has to be run again next time."""
        idle = self._state is SessionState.READY and self._flight.oldest is None
        automatic = self._durability.recovery in ("auto", "checkpoint")
        if isinstance(self._record, MemoryJournal) or not (idle and automatic and self._saver.dirty):
            return
        try:
            await self._saver.save_last(_FINAL_SAVE)
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

    def _worker(self) -> Incarnation:
        if self._incarnation is None:
            raise SpawnError(f"session {self.session_id!r} has no worker")
        return self._incarnation

    async def _available(self) -> Incarnation:
        """Give the worker; while the session is coming back, wait for it."""
        while self._coming_back is not None:
            await asyncio.wait([self._coming_back])
        if self._state is not SessionState.READY:
            raise self._unusable()
        return self._worker()

    def _unusable(self) -> Exception:
        if self._state in (SessionState.CLOSING, SessionState.CLOSED):
            return SessionClosed(f"session {self.session_id!r} is closed")
        if self._why_dead is not None and self._state is SessionState.DEAD:
            return _again(self._why_dead)
        if self._state is SessionState.STARTING:
            return WorkerDied(f"session {self.session_id!r} is getting a new worker and has none yet")
        if self._incarnation is None:
            return WorkerDied(f"session {self.session_id!r} has no worker")
        return self._incarnation.death(reason="restart() gives the session a fresh one")

    def _abandon(self, error: Callable[[tuple[str, ...]], BaseException]) -> None:
        """Fail all that waits for the worker, each with an error of its own."""
        running = self._flight.running
        if self._incarnation is not None:
            self._incarnation.requests.fail_all(lambda: error(running))
        self._flight.fail_all(lambda: error(running))


def _again(error: Exception) -> Exception:
    """Give an error for another who waits: one exception object must not be raised twice at once."""
    return type(error)(*error.args)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
