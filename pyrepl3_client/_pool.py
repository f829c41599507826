"""A pool of idle workers, started and warmed up in advance, for sessions to take."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import anyio

from pyrepl3_client._concurrency.exit_guard import ExitGuard
from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._execution.handlers import DisplayHandler, InputHandler, OutputHandler, make_handlers
from pyrepl3_client._execution.offers import checked_capabilities
from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.idle_worker import IdleWorker
from pyrepl3_client._launch.spawn import spawn
from pyrepl3_client._launch.worker import Launch, Worker
from pyrepl3_client._session.open import (
    DEFAULT_CONFIG,
    checked_config,
    checked_session_id,
    durability_of,
    event_handlers_of,
    start_session,
)
from pyrepl3_client._session.opener import SessionOpener, require_asyncio
from pyrepl3_client._session.options import RecoveryHandler
from pyrepl3_client._session.recovery_report import RecoveryPolicy
from pyrepl3_client._session.session import Session
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client.config import WorkerConfig, checked_bool, checked_callable, checked_modules
from pyrepl3_client.errors import PyRepl3Error, SpawnError
from pyrepl3_schemas.executor_config import as_int, shown

_REFILL_DELAY: Final = 0.02
"""Seconds by which a replacement waits: starting one holds the loop for milliseconds, and the session that
has just been opened is to be used first."""
_MAX_SIZE: Final = 10_000
"""Above it stands a mistake: each worker is a process, and takes megabytes."""
_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 10.0


def seconds_until_refill(idle_workers: int, size: int, failures: int) -> float | None:
    """Return in how many seconds to start the next idle worker, None for not at all.

    Args:
        idle_workers: how many there are, warm or not.
        size: how many there should be.
        failures: how many died or could not be started since one last got warm.
    """
    if idle_workers >= size:
        return None
    if failures == 0:
        return 0.0
    return min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 20), _LONGEST_BACKOFF)


def choose_idle_worker(idle_workers: Sequence[IdleWorker]) -> IdleWorker | None:
    """Return the worker for the next session: the oldest that is warm, else the oldest that lives."""
    living = [idle for idle in idle_workers if idle.alive]
    return next((idle for idle in living if idle.warm), living[0] if living else None)


class WorkerPool:
    """Keeps `size` workers warm. A session takes one and keeps it, and another is started in its place.

    The pool bounds how many workers wait, not how many sessions there are: when none waits, a session starts
    a worker of its own, and opening it takes as long as that.

    Workers are forked from one process that has imported everything, in milliseconds and sharing its
    memory, where that is safe; else they are spawned, and `spawn_reason` says why. See `ForkServer` for
    what makes it unsafe as far as can be seen. The rest cannot be seen: a warm module that keeps, from its
    import on, what must not be the same in two processes (a seed, an id, the pid) needs `fork=False`.

    Example:
        async with WorkerPool(4, warm=("numpy",)) as pool, pool.open_session() as session:
            await session.execute("import numpy")
    """

    def __init__(
        self,
        size: int,
        config: WorkerConfig = DEFAULT_CONFIG,
        warm: Sequence[str] = (),
        *,
        fork: bool = True,
        launch: Launch | None = None,
        on_event: EventHandler | None = None,
    ) -> None:
        """Describe the pool; entering it starts the workers.

        Args:
            size: how many workers to keep waiting.
            config: the configuration of all of them.
            warm: names of modules for them to import, on top of `config.warm`.
            fork: whether workers may be forked from a fork server.
            launch: starts a worker instead of spawning or forking; for tests.
            on_event: gets each `SessionEvent` of the pool's sessions; see `pyrepl3_client.open_session`.

        Raises:
            ValueError, TypeError: an argument has the wrong value or type; the text names it.
        """
        self.size = as_int("size", size)
        if not 1 <= self.size <= _MAX_SIZE:
            raise ValueError(f"size must be between 1 and {_MAX_SIZE:,}, not {shown(size)}")
        checked_config(config)
        checked_bool("fork", fork)
        checked_callable("launch", launch)
        self._on_event = checked_callable("on_event", on_event)
        warm = checked_modules(warm)
        self.config = replace(config, warm=config.warm + warm)
        self._spawn = self._launch = launch or spawn
        self._fork = fork and launch is None
        self._fork_server: ForkServer | None = None
        self._idle_workers: list[IdleWorker] = []
        self._failures = 0
        self._refill_timer: asyncio.TimerHandle | None = None
        self._warmed: asyncio.Future[None] | None = None
        self._open = False
        self._guard: ExitGuard | None = None

    def __repr__(self) -> str:
        """Show size, how many workers wait, and whether the pool is open."""
        state = f"{self.waiting} waiting" if self._open else "not open"
        return f"<WorkerPool of {self.size}: {state}>"

    @property
    def spawn_reason(self) -> str | None:
        """Why workers are spawned and not forked; None when they are forked."""
        if not self._fork:
            return "the pool was told not to fork"
        return "the pool is closed" if self._fork_server is None else self._fork_server.reason

    @property
    def waiting(self) -> int:
        """How many warm workers wait for a session."""
        return sum(idle.warm for idle in self._idle_workers)

    async def __aenter__(self) -> Self:
        """Start the workers and wait until all of them are warm.

        Returns:
            The pool.

        Raises:
            SpawnError: one could not be started, or ended, or took longer than `spawn_timeout`.
            PyRepl3Error: no asyncio event loop runs here.
        """
        require_asyncio("a WorkerPool")
        self._open = True
        self._guard = ExitGuard("a pool of workers was never left", self._kill_idle)
        try:
            with anyio.move_on_after(self.config.spawn_timeout) as limit:
                await self._start_fork_server()
                while self.waiting < self.size:
                    await self._launch_or_wait()
        except BaseException:
            await self._close()
            raise
        if limit.cancelled_caught:
            await self._close()
            raise SpawnError(f"the pool's workers were not warm within {self.config.spawn_timeout:g} seconds")
        return self

    async def _start_fork_server(self) -> None:
        if not self._fork:
            return
        self._fork_server = await ForkServer(self.config, spawn=self._spawn).__aenter__()
        self._launch = self._fork_server.launch
        await self._fork_server.wait_started()

    async def _launch_or_wait(self) -> None:
        if len(self._idle_workers) < self.size:
            self._launch_idle()
            # Starting one holds the loop; let others have a turn in between.
            await asyncio.sleep(0)
            return
        self._warmed = asyncio.get_running_loop().create_future()
        ended = [idle.ended for idle in self._idle_workers]
        await asyncio.wait([self._warmed, *ended], return_when=asyncio.FIRST_COMPLETED)
        for future in ended:
            if future.done():
                raise future.result()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the workers that wait. Sessions go on until they are left themselves."""
        await self._close()

    def open_session(
        self,
        session_id: str | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        capabilities: Capabilities | None = None,
        on_output: OutputHandler | None = None,
        on_input: InputHandler | None = None,
        on_display: DisplayHandler | None = None,
        recovery: RecoveryPolicy = "auto",
        max_attempts: int = 3,
        on_recovery: RecoveryHandler | None = None,
        on_event: EventHandler | None = None,
    ) -> SessionOpener:
        """Open a session in a worker of the pool: `async with` closes it at the end, `await` leaves it open.

        When its worker dies, it gets the next one from the pool too.

        Args:
            session_id: as for `pyrepl3_client.open_session`, and so are the others.
            store: where the session is recorded.
            capabilities: host functions by their names.
            on_output: gets every `Output` in order.
            on_input: answers prompts.
            on_display: gets every `Display` in order.
            recovery: what a worker's death leads to.
            max_attempts: how many workers one execution may cost.
            on_recovery: gets the report when the session has come back.
            on_event: gets each `SessionEvent`, beside the pool's own handler.

        Returns:
            What opens the `Session`, once.

        Raises:
            PyRepl3Error: the pool is not open.
            SpawnError: no worker waited, and none could be started.
            CapabilityError, StoreError, ValueError: as `pyrepl3_client.open_session`.
        """
        name = checked_session_id(session_id)
        offered = checked_capabilities(capabilities)
        handlers = make_handlers(on_output, on_input, on_display)
        durability = durability_of(store, recovery, max_attempts, on_recovery)
        event_handlers = event_handlers_of(self._on_event, on_event)

        async def start() -> Session:
            if not self._open:
                raise PyRepl3Error("the pool is closed: use it as `async with WorkerPool(…) as pool`")
            return await start_session(
                self._take_or_launch,
                name,
                self.config,
                offered,
                handlers,
                durability=durability,
                event_handlers=event_handlers,
            )

        return SessionOpener(start)

    def _take_or_launch(self, config: WorkerConfig) -> Worker:
        idle = choose_idle_worker(self._idle_workers)
        if idle is None:
            return self._launch(config)
        self._idle_workers.remove(idle)
        if self._open:
            self._schedule(_REFILL_DELAY)
        return idle.detach()

    def _schedule(self, at_least: float = 0.0) -> None:
        seconds = seconds_until_refill(len(self._idle_workers), self.size, self._failures)
        if seconds is not None and self._refill_timer is None and self._open:
            loop = asyncio.get_running_loop()
            self._refill_timer = loop.call_later(max(seconds, at_least), self._refill_one)

    def _refill_one(self) -> None:
        self._refill_timer = None
        try:
            self._launch_idle()
        except SpawnError:
            # A session that is opened meanwhile raises it: its own start fails the same way.
            self._failures += 1
        self._schedule()

    def _launch_idle(self) -> None:
        self._idle_workers.append(IdleWorker(self._launch(self.config), self._on_warm, self._on_idle_exit))

    def _on_warm(self) -> None:
        self._failures = 0
        if self._warmed is not None and not self._warmed.done():
            self._warmed.set_result(None)

    def _on_idle_exit(self, idle: IdleWorker) -> None:
        if idle in self._idle_workers:
            self._idle_workers.remove(idle)
            self._failures += 1
            self._schedule()

    def _kill_idle(self) -> None:
        """Kill the workers that wait, from any thread and without waiting for their end."""
        for idle in list(self._idle_workers):
            idle.worker.kill()
            idle.worker.kill_outermost()

    async def _close(self) -> None:
        self._open = False
        if self._guard is not None:
            self._guard.release()
        if self._refill_timer is not None:
            self._refill_timer.cancel()
            self._refill_timer = None
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None
            self._launch = self._spawn
        idle_workers, self._idle_workers = self._idle_workers, []
        for idle in idle_workers:
            idle.kill()
        if idle_workers:
            await wait_uncancelled(asyncio.get_running_loop().create_task(_all_ended(idle_workers)))


async def _all_ended(idle_workers: list[IdleWorker]) -> None:
    await asyncio.wait([idle.ended for idle in idle_workers])
