"""Keeps workers warm for sessions to take: starts them in advance, and others in their place."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import anyio

from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.idle_worker import IdleWorker
from pyrepl3_client._launch.interpreter import describe_interpreter
from pyrepl3_client._launch.spawn import Spawner
from pyrepl3_client._launch.worker import Launch, Worker
from pyrepl3_client._log import write
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.events import DeathEvent
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client._worker.death_cause import certificate, oom_kills
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError, WorkerDied

_logger: Final = logging.getLogger("pyrepl3.pool")
_REFILL_DELAY: Final = 0.02
"""Seconds by which a replacement waits: starting one holds the loop for milliseconds, and the session that
has just been opened is to be used first."""
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


class IdleWorkers:
    """Keeps `size` workers of one configuration warm while it is open."""

    def __init__(
        self,
        size: int,
        config: WorkerConfig,
        event_handlers: Sequence[EventHandler] = (),
        *,
        fork: bool,
        launch: Launch | None,
    ) -> None:
        """Start nothing yet.

        Args:
            size: how many workers to keep waiting.
            config: the configuration of all of them.
            event_handlers: get the deaths of those that wait.
            fork: whether workers may be forked from a fork server.
            launch: starts a worker instead of spawning or forking; for tests.
        """
        self._size = size
        self._config = config
        self._event_handlers = event_handlers
        self._telemetry: Telemetry | None = None
        self._oom_kills = 0
        self._spawner = Spawner()
        self._spawn = self._launch = launch or self._spawner.launch
        self._fork = fork and launch is None
        self._fork_server: ForkServer | None = None
        self.idle: list[IdleWorker] = []
        """Those that wait, the oldest first."""
        self._failures = 0
        self._refill_timer: asyncio.TimerHandle | None = None
        self._warmed: asyncio.Future[None] | None = None
        self._open = False

    @property
    def spawn_reason(self) -> str | None:
        """Why workers are spawned and not forked; None when they are forked."""
        if not self._fork:
            return "the pool was told not to fork"
        return "the pool is closed" if self._fork_server is None else self._fork_server.reason

    @property
    def warm(self) -> int:
        """How many warm workers wait."""
        return sum(idle.warm for idle in self.idle)

    async def open(self) -> None:
        """Start the workers and wait until all of them are warm; when that fails, `close` is still due.

        Raises:
            SpawnError: one could not be started, or ended, or took longer than `spawn_timeout`.
        """
        self._open = True
        self._telemetry = Telemetry("", self._event_handlers)
        self._oom_kills = oom_kills()
        with anyio.move_on_after(self._config.spawn_timeout) as limit:
            await self._start_fork_server()
            while self.warm < self._size:
                await self._launch_or_wait()
        if limit.cancelled_caught:
            seconds = self._config.spawn_timeout
            interpreter = describe_interpreter(self._config, "")
            raise SpawnError(
                f"the pool's workers were not warm within {seconds:g} seconds (spawn_timeout)"
                + (f"; {interpreter}" if interpreter else "")
            )

    async def _start_fork_server(self) -> None:
        if not self._fork:
            return
        self._fork_server = await ForkServer(self._config, spawn=self._spawn).__aenter__()
        self._launch = self._fork_server.launch
        await self._fork_server.wait_started()

    async def _launch_or_wait(self) -> None:
        if len(self.idle) < self._size:
            self._launch_idle()
            # Starting one holds the loop; let others have a turn in between.
            await asyncio.sleep(0)
            return
        self._warmed = asyncio.get_running_loop().create_future()
        ended = [idle.ended for idle in self.idle]
        await asyncio.wait([self._warmed, *ended], return_when=asyncio.FIRST_COMPLETED)
        for future in ended:
            if future.done():
                raise self._spawn_error(future.result())

    def _spawn_error(self, end: WorkerDied) -> SpawnError:
        """Return the error for a worker that ended before it was warm, with the interpreter that it had."""
        reason = describe_interpreter(self._config, end.stderr)
        return SpawnError(end.what, end.exit_code, end.signal, end.stderr, reason=reason)

    def take(self) -> Worker:
        """Return a worker that waits, or start one.

        Raises:
            SpawnError: none waited, and none could be started.
        """
        idle = choose_idle_worker(self.idle)
        if idle is None:
            return self._launch(self._config)
        self.idle.remove(idle)
        if self._open:
            self._schedule(_REFILL_DELAY)
        return idle.detach()

    def _schedule(self, at_least: float = 0.0) -> None:
        seconds = seconds_until_refill(len(self.idle), self._size, self._failures)
        if seconds is not None and self._refill_timer is None and self._open:
            loop = asyncio.get_running_loop()
            self._refill_timer = loop.call_later(max(seconds, at_least), self._refill_one)

    def _refill_one(self) -> None:
        self._refill_timer = None
        try:
            self._launch_idle()
        except SpawnError as error:
            # A session that is opened meanwhile raises it: its own start fails the same way.
            self._failures += 1
            if self._failures == 1:
                write(_logger, logging.WARNING, "a worker cannot be started, and is tried again: %s", error)
        self._schedule()

    def _launch_idle(self) -> None:
        self.idle.append(IdleWorker(self._launch(self._config), self._on_warm, self._on_idle_exit))

    def _on_warm(self) -> None:
        self._failures = 0
        if self._warmed is not None and not self._warmed.done():
            self._warmed.set_result(None)

    def _on_idle_exit(self, idle: IdleWorker) -> None:
        if idle in self.idle:
            self.idle.remove(idle)
            self._failures += 1
            self._announce_death(idle)
            self._schedule()

    def _announce_death(self, idle: IdleWorker) -> None:
        assert idle.status is not None
        assert self._telemetry is not None
        before, self._oom_kills = self._oom_kills, oom_kills()
        death = certificate(
            idle.status,
            idle.stderr,
            pid=idle.worker.pid,
            incarnation=0,
            max_memory=self._config.executor.max_memory_usage,
            kernel_has_killed=self._oom_kills > before,
        )
        self._telemetry.announce(DeathEvent(session_id="", worker=idle.worker.pid, certificate=death))

    def kill(self) -> None:
        """Kill the workers that wait, from any thread and without waiting for their end."""
        for idle in list(self.idle):
            idle.worker.kill()
            idle.worker.kill_outermost()

    async def close(self) -> None:
        """End the workers that wait, and keep none any more; `take` still starts them one by one."""
        self._open = False
        if self._refill_timer is not None:
            self._refill_timer.cancel()
            self._refill_timer = None
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None
            self._launch = self._spawn
        self._spawner.close()
        idle_workers, self.idle = self.idle, []
        for idle in idle_workers:
            idle.kill()
        telemetry, self._telemetry = self._telemetry, None
        ending = _all_ended(idle_workers, telemetry, self._config.close_grace)
        await wait_uncancelled(asyncio.get_running_loop().create_task(ending))


async def _all_ended(idle_workers: list[IdleWorker], telemetry: Telemetry | None, grace: float) -> None:
    if idle_workers:
        await asyncio.wait([idle.ended for idle in idle_workers])
    if telemetry is not None:
        await telemetry.close(grace)
