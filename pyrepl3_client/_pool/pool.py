"""The public face of a pool: warm workers, a bound on sessions, and sessions by name."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

from pyrepl3_client._concurrency.exit_guard import ExitGuard
from pyrepl3_client._concurrency.owner import Owner
from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._execution.handlers import (
    NO_HANDLERS,
    DisplayHandler,
    InputHandler,
    OutputHandler,
    make_handlers,
)
from pyrepl3_client._execution.offers import checked_capabilities
from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._launch.worker import Launch, Worker
from pyrepl3_client._pool.adjustments import adjustments, check_directory
from pyrepl3_client._pool.idle_workers import IdleWorkers
from pyrepl3_client._pool.named_session import NamedOptions
from pyrepl3_client._pool.named_sessions import NamedSessions
from pyrepl3_client._pool.places import Place, Places, checked_count
from pyrepl3_client._pool.stats import PoolStats
from pyrepl3_client._session.open import (
    DEFAULT_CONFIG,
    IN_MEMORY,
    check_policy,
    checked_config,
    checked_session_id,
    durability_of,
    event_handlers_of,
    start_session,
    where_kept,
)
from pyrepl3_client._session.opener import SessionOpener, require_asyncio
from pyrepl3_client._session.options import RecoveryHandler
from pyrepl3_client._session.recovery_report import RecoveryPolicy
from pyrepl3_client._session.session import Session
from pyrepl3_client._session.shared import SharedSession, open_shared
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client.config import (
    WorkerConfig,
    checked_bool,
    checked_callable,
    checked_id,
    checked_modules,
    checked_seconds,
)
from pyrepl3_client.errors import PoolClosed, PoolTimeout, PyRepl3Error
from pyrepl3_schemas.executor_config import shown
from pyrepl3_schemas.messages import Adjustments

DEFAULT_ACQUIRE_TIMEOUT: Final = 30.0
_NOT_OPEN: Final = "the pool is not open: use it as `async with WorkerPool(…) as pool`"
_KEPT_SHOWN: Final = 3


class WorkerPool:
    """Keeps `size` workers warm, and lets at most `max_sessions` sessions be open at a time.

    A session takes a warm worker and keeps it, and another is started in its place; so there are at most
    `size + max_sessions` workers. A request for a session when there are as many as there may be waits for
    one to end, in the order of asking, and gets a `PoolTimeout` after `acquire_timeout`.

    `open_session` and `acquire` give a new session, in a worker that no other has had. `session` gives the
    one of a name, which several may use: the live one, else from its store, else new. The end of one use
    ends no other. One that is not in use is put into its store when it has been idle for `idle_timeout`, or
    when others wait for room, and its worker is freed; the next use brings it back.

    Workers are forked from one process that has imported everything, in milliseconds and sharing its
    memory, where that is safe; else they are spawned, and `spawn_reason` says why. See `ForkServer` for
    what makes it unsafe as far as can be seen. The rest cannot be seen: a warm module that keeps, from its
    import on, what must not be the same in two processes (a seed, an id, the pid) needs `fork=False`.

    Example:
        async with WorkerPool(4, warm=("numpy",), max_sessions=20, idle_timeout=300) as pool:
            async with pool.session("user-42", store="sessions.db") as session:
                await session.execute("import numpy")
    """

    def __init__(
        self,
        size: int,
        config: WorkerConfig = DEFAULT_CONFIG,
        warm: Sequence[str] = (),
        *,
        max_sessions: int | None = None,
        acquire_timeout: float | None = DEFAULT_ACQUIRE_TIMEOUT,
        idle_timeout: float | None = None,
        fork: bool = True,
        launch: Launch | None = None,
        on_event: EventHandler | None = None,
    ) -> None:
        """Describe the pool; entering it starts the workers.

        Args:
            size: how many workers to keep waiting.
            config: the configuration of all of them.
            warm: names of modules for them to import, on top of `config.warm`.
            max_sessions: how many sessions may be open at a time; None is as many as `size`.
            acquire_timeout: seconds that a request for a session waits for room; None: as long as it takes.
            idle_timeout: seconds after which an unused session by name is put into its store; None
                does so only when others wait for room.
            fork: whether workers may be forked from a fork server.
            launch: starts a worker instead of spawning or forking; for tests.
            on_event: gets each `SessionEvent` of the pool's sessions, and a `DeathEvent` of each worker that
                dies while it waits; see `pyrepl3_client.open_session`.

        Raises:
            ValueError, TypeError: an argument has the wrong value or type; the text names it.
        """
        self.size = checked_count("size", size)
        checked_config(config)
        check_policy(config)
        checked_bool("fork", fork)
        checked_callable("launch", launch)
        self._event_handlers = event_handlers_of(on_event)
        warm = checked_modules(warm)
        self.max_sessions = self.size if max_sessions is None else checked_count("max_sessions", max_sessions)
        self._acquire_timeout = (
            None if acquire_timeout is None else checked_seconds("acquire_timeout", acquire_timeout)
        )
        self._idle_timeout = None if idle_timeout is None else checked_seconds("idle_timeout", idle_timeout)
        self.config = replace(config, warm=config.warm + warm)
        self._workers = IdleWorkers(self.size, self.config, self._event_handlers, fork=fork, launch=launch)
        self._places = Places(self.max_sessions, self._make_room)
        self._named = self._new_named()
        self._handed_out: WeakSet[Session] = WeakSet()
        """Sessions that were given and not released."""
        self._releases: set[asyncio.Task[None]] = set()
        self._closed = _NOT_OPEN
        """Why there are no sessions; empty while there are."""
        self._entered = False
        self._owner: Owner | None = None
        self._guard: ExitGuard | None = None
        self._opened = 0
        self._timeouts = 0

    def __repr__(self) -> str:
        """Show size, how many workers wait, and whether the pool is open."""
        if self._closed == _NOT_OPEN:
            return f"<WorkerPool of {self.size}: not open>"
        state = "is drained" if self._closed else f"{self.waiting} waiting"
        return f"<WorkerPool of {self.size}: {state}, {self._places.taken} of {self.max_sessions} sessions>"

    @property
    def spawn_reason(self) -> str | None:
        """Why workers are spawned and not forked; None when they are forked."""
        return self._workers.spawn_reason

    @property
    def waiting(self) -> int:
        """How many warm workers wait for a session."""
        return self._workers.warm

    def stats(self) -> PoolStats:
        """Return the figures of the pool as they are now."""
        named, places = self._named, self._places
        return PoolStats(
            size=self.size,
            max_sessions=self.max_sessions,
            idle_workers=self.waiting,
            sessions=places.taken,
            named=named.live,
            held=named.held,
            waiting=places.waiting,
            opened=self._opened,
            returned=named.returned,
            passivated=named.passivated,
            timeouts=self._timeouts,
            longest_wait=places.longest_wait,
            kept=named.kept,
        )

    # --- opening and closing -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the workers and wait until all of them are warm.

        Returns:
            The pool.

        Raises:
            SpawnError: one could not be started, or ended, or took longer than `spawn_timeout`.
            PyRepl3Error: no asyncio event loop runs here, or the pool has been entered and not left.
        """
        require_asyncio("a WorkerPool")
        if self._entered:
            raise PyRepl3Error("the pool is open already: enter it once, and use it from many tasks")
        self._entered = True
        self._owner = Owner("a WorkerPool")
        self._named = self._new_named()
        self._places.refuse(None)
        self._opened = self._timeouts = 0
        self._closed = ""
        self._guard = ExitGuard("a pool of workers was never left", self._workers.kill)
        try:
            await self._workers.open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the workers that wait and the sessions by name, and tell the requests that wait for a session.

        A session by name stays in its store, with what runs in it, as one that is closed. Other sessions
        go on until they are left themselves; those that were released have ended.
        """
        await self._close()

    async def drain(self, timeout: float | None = None) -> bool:
        """Give no more sessions, and wait until those that there are have ended.

        Requests that wait get a `PoolClosed` at once. A session by name ends when it is not in use any more
        and what runs in it has ended; in its store it stays. To be called before the pool is left.

        Example:
            `await pool.drain(20)` when the service gets SIGTERM, then leave the pool.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Returns:
            Whether all of them have ended in time. Leaving the pool ends those by name that have not.

        Raises:
            PoolClosed: the pool is not open.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        if timeout is not None:
            timeout = checked_seconds("timeout", timeout)
        self._check_usable(drained=True)
        self._refuse("the pool is drained: it gives no more sessions, and waits for those that there are")
        try:
            async with asyncio.timeout(timeout):
                await self._places.wait_empty()
        except TimeoutError:
            return False
        return True

    def _refuse(self, why: str) -> None:
        self._closed = why
        self._places.refuse(lambda: PoolClosed(why))
        self._named.refuse(lambda: PoolClosed(why))

    async def _close(self) -> None:
        self._refuse("the pool was closed")
        self._closed = _NOT_OPEN
        if self._guard is not None:
            self._guard.release()
        closing = asyncio.get_running_loop().create_task(self._end_sessions())
        try:
            await wait_uncancelled(closing)
        finally:
            try:
                await self._workers.close()
            finally:
                self._entered = False

    async def _end_sessions(self) -> None:
        await self._named.close()
        if self._releases:
            await asyncio.wait(self._releases)

    # --- sessions ------------------------------------------------------------------------------------

    def open_session(
        self,
        session_id: str | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        config: WorkerConfig | None = None,
        capabilities: Capabilities | None = None,
        on_output: OutputHandler | None = None,
        on_input: InputHandler | None = None,
        on_display: DisplayHandler | None = None,
        recovery: RecoveryPolicy = "auto",
        max_attempts: int = 3,
        on_recovery: RecoveryHandler | None = None,
        on_event: EventHandler | None = None,
        wait: float = 0.0,
        allow_weaker_confinement: bool = False,
    ) -> SessionOpener:
        """Open a session in a worker of the pool: `async with` closes it at the end, `await` leaves it open.

        Opening waits for room (see `acquire`). When its worker dies, it gets the next one from the pool too.

        Args:
            session_id: as for `pyrepl3_client.open_session`, and so are the others.
            store: where the session is recorded.
            config: the session's own, by default the pool's. It may differ in what a warm worker can still
                change: `executor`, `report`, `env`, `cwd`, lower `limits`, all graces and timeouts.
            capabilities: host functions by their names.
            on_output: gets every `Output` in order.
            on_input: answers prompts.
            on_display: gets every `Display` in order.
            recovery: what a worker's death leads to.
            max_attempts: how many workers one execution may cost.
            on_recovery: gets the report when the session has come back.
            on_event: gets each `SessionEvent`, beside the pool's own handler.
            wait: seconds to wait while the session is another owner's.
            allow_weaker_confinement: open a session at a weaker level than it has run with.

        Returns:
            What opens the `Session`, once.

        Raises:
            PoolClosed: the pool is not open, or is closed or drained while this waits for room.
            PoolTimeout: there was no room within `acquire_timeout`.
            SpawnError: no worker waited, and none could be started.
            CapabilityError, StoreError, ValueError: as `pyrepl3_client.open_session`; a ValueError too where
                `config` differs in what a warm worker cannot change, which it names.
        """
        name = checked_session_id(session_id)
        own, change = self._checked_config(config)
        offered = checked_capabilities(capabilities)
        handlers = make_handlers(on_output, on_input, on_display)
        weaker = allow_weaker_confinement
        durability = durability_of(
            store, recovery, max_attempts, on_recovery, wait=wait, allow_weaker_confinement=weaker
        )
        check_policy(own, store)
        event_handlers = (*self._event_handlers, *event_handlers_of(on_event))

        return SessionOpener(
            lambda: self._open(
                self._acquire_timeout,
                lambda release: start_session(
                    lambda _: self._take_worker(change),
                    name,
                    own,
                    offered,
                    handlers,
                    durability=durability,
                    release=release,
                    event_handlers=event_handlers,
                ),
                change,
            ),
            "pool.open_session",
        )

    async def acquire(self, timeout: float | None = None) -> Session:
        """Wait for room, and open a new session in a worker of the pool; `release` is to end it.

        It is what `await pool.open_session()` gives, which has the options.

        Example:
            session = await pool.acquire()
            try:
                await session.execute("6 * 7")
            finally:
                await pool.release(session)

        Args:
            timeout: seconds to wait for room; None for `acquire_timeout`.

        Returns:
            The session. Its namespace is new; its worker was no other's.

        Raises:
            PoolTimeout: as many sessions as there may be were in use all that time.
            PoolClosed: the pool is not open, or is closed or drained meanwhile.
            SpawnError: no worker can be started.
            ValueError, TypeError: `timeout` is not above 0, or no number.
        """
        seconds = self._acquire_timeout if timeout is None else checked_seconds("timeout", timeout)
        name = checked_session_id(None)
        return await self._open(
            seconds,
            lambda release: start_session(
                lambda _: self._take_worker(None),
                name,
                self.config,
                {},
                NO_HANDLERS,
                durability=IN_MEMORY,
                release=release,
                event_handlers=self._event_handlers,
            ),
        )

    def release(self, session: Session) -> asyncio.Future[None]:
        """End the use of a session of this pool: it is closed, and one by name goes on for all others.

        It happens also if what this returns is not awaited.

        Args:
            session: what `acquire`, `open_session` or `session` gave, and was not released since.

        Returns:
            What to await for its end: its worker has ended then, and its room is another's.

        Raises:
            ValueError: it is not this pool's, or was released already.
            TypeError: it is no session.
            PyRepl3Error: this is another event loop than the pool's.
        """
        if not isinstance(session, Session):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"session must be a Session of this pool, not {shown(session)}")
        if self._owner is not None:
            self._owner.check()
        if session not in self._handed_out:
            raise ValueError(
                f"session must be one of this pool's that was not released yet, not {session!r}: release "
                "each once, where acquire() or session() gave it"
            )
        self._handed_out.discard(session)
        task = asyncio.get_running_loop().create_task(session.close())
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return asyncio.shield(task)

    def session(
        self,
        name: str,
        *,
        store: str | os.PathLike[str] | None = None,
        config: WorkerConfig | None = None,
        capabilities: Capabilities | None = None,
        recovery: RecoveryPolicy = "auto",
        max_attempts: int = 3,
        wait: float = 0.0,
        allow_weaker_confinement: bool = False,
    ) -> SessionOpener:
        """Use the session of a name: the live one if there is one, else from its store, else a new one.

        `async with` gives it back at the end, as `close` and `release` do; it goes on then, for others that
        use it and for later. What several run in it runs in the order in which they submitted it. Use it for
        a request, not for a user's whole visit: while it is in use, it is not idle.

        One that is not in use and in which nothing runs is put into its store and closed after
        `idle_timeout`, or when others wait for room, the least recently used first. It stays live instead if
        something of it would be lost: without a store; while tasks, threads or processes of its code go
        on; or if it has values that no checkpoint can hold. `stats().kept` says which, and why.

        Args:
            name: the session's, and its id in the store; without a colon.
            store: where it is recorded, as for `pyrepl3_client.open_session`. The same name in another store
                is another session.
            config: its own, as for `open_session`.
            capabilities: host functions by their names; those of the newest use count, for all.
            recovery: what a worker's death leads to.
            max_attempts: how many workers one execution may cost.
            wait: seconds to wait while the session is another owner's.
            allow_weaker_confinement: open a session at a weaker level than it has run with.

        Returns:
            What gives the `Session`, once.

        Raises:
            PoolClosed: the pool is not open, or is closed or drained meanwhile.
            PoolTimeout: there was no room within `acquire_timeout`.
            SessionBusy: another process, or another pool, has it live in that store.
            SpawnError, StoreError: it cannot be opened.
            CapabilityError: a capability cannot be offered.
            ValueError, TypeError: an argument has the wrong value or type, or the session is live with other
                options; the text names it.
        """
        checked_id("name", name)
        own, change = self._checked_config(config)
        check_policy(own, store)
        place, why_kept = where_kept(store)
        if not why_kept and recovery not in ("auto", "checkpoint"):
            why_kept = f"recovery={recovery!r} does not bring it back as it was"
        weaker = allow_weaker_confinement
        durability = durability_of(
            store, recovery, max_attempts, None, wait=wait, allow_weaker_confinement=weaker
        )
        options = NamedOptions(
            (place, name),
            own,
            change,
            replace(durability, opened_by="pool.session()"),
            checked_capabilities(capabilities),
            why_kept,
        )

        async def start() -> Session:
            self._check_usable()
            return self._hand_out(await self._named.hold(options, self._acquire_timeout))

        return SessionOpener(start, "pool.session")

    async def close_session(self, name: str, *, store: str | os.PathLike[str] | None = None) -> bool:
        """End the live session of a name for all its users; what runs in it is cancelled.

        In a store it stays, and `session` brings it back; without one it is gone.

        Args:
            name: the session's.
            store: as for `session`.

        Returns:
            Whether it was live.

        Raises:
            PoolClosed: the pool is not open.
            StoreError, ValueError, TypeError: an argument has the wrong value or type.
        """
        checked_id("name", name)
        place, _ = where_kept(store)
        self._check_usable(drained=True)
        return await self._named.close_one((place, name))

    # --- what they need ------------------------------------------------------------------------------

    def _new_named(self) -> NamedSessions:
        return NamedSessions(self._places, self._start_named, self._idle_timeout, self._timed_out)

    def _make_room(self) -> None:
        self._named.make_room()

    async def _start_named(self, options: NamedOptions, release: Callable[[], None]) -> SharedSession:
        check_directory(options.change)
        shared = await open_shared(
            lambda _: self._take_worker(options.change),
            options.name,
            options.config,
            options.capabilities,
            options.durability,
            self._event_handlers,
            release,
        )
        self._opened += 1
        return shared

    def _take_worker(self, change: Adjustments | None) -> Worker:
        check_directory(change)
        worker = self._workers.take()
        worker.pipes.adjustments = change
        if change is not None and change.directory and worker.pipes.directories is not None:
            # When it is gone by now the worker will say so.
            with suppress(OSError):
                worker.pipes.directories.start_in(change.directory)
        return worker

    def _checked_config(self, config: WorkerConfig | None) -> tuple[WorkerConfig, Adjustments | None]:
        if config is None:
            return self.config, None
        return config, adjustments(self.config, checked_config(config))

    async def _open(
        self,
        seconds: float | None,
        start: Callable[[Callable[[], None]], Awaitable[Session]],
        change: Adjustments | None = None,
    ) -> Session:
        """Wait for room, so many seconds at most, and open a session; at its end it gives its place back."""
        self._check_usable()
        check_directory(change)
        place = await self._within(seconds)
        try:
            session = await start(place.give_back)
        except BaseException:
            place.give_back()
            raise
        self._opened += 1
        return self._hand_out(session)

    def _hand_out(self, session: Session) -> Session:
        self._handed_out.add(session)
        return session

    def _check_usable(self, *, drained: bool = False) -> None:
        if self._owner is None or (self._closed and not (drained and self._closed != _NOT_OPEN)):
            raise PoolClosed(self._closed)
        self._owner.check()

    async def _within(self, seconds: float | None) -> Place:
        try:
            async with asyncio.timeout(seconds):
                return await self._places.take()
        except TimeoutError:
            assert seconds is not None
            raise self._timed_out(seconds) from None

    def _timed_out(self, seconds: float) -> Exception:
        self._timeouts += 1
        kept = self._named.kept
        idle = ""
        if kept:
            told = "; ".join(f"{each.name!r}: {each.reason}" for each in kept[:_KEPT_SHOWN])
            idle = f"; {len(kept)} of them are idle and cannot be put into a store ({told})"
        return PoolTimeout(
            f"there was no room for a session within {seconds:g} s: all {self.max_sessions} of the pool are "
            f"in use (max_sessions={self.max_sessions}){idle}; release some, or raise max_sessions or "
            "acquire_timeout"
        )
