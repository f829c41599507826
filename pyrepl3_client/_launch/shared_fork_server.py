"""Workers for sessions that lose them: one fork server for all sessions of a loop with one configuration.

A session whose worker never dies needs no fork server, and pays for none. When it asks for a second worker,
a fork server for its configuration is started a little later, and the third worker comes from that. Where
modules are to be warm, workers are always spawned: only the user knows whether these modules may be
imported once for several processes, and says so with a `WorkerPool`. Without warm modules, only pyrepl3 and
the standard library are imported before the fork.
"""

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.spawn import Spawner, spawn
from pyrepl3_client._launch.worker import Worker
from pyrepl3_client.config import WorkerConfig

_START_DELAY: Final = 0.5
"""Seconds from the start of a second worker to that of the fork server: recovery comes first."""


class SharedForkServer:
    """Launches the workers of one session. Use it on one event loop, and close it there."""

    def __init__(self) -> None:
        """Create it without a fork server; `launch` acquires one when it is needed."""
        self._spawner = Spawner()
        self._launched = 0
        self._counted: _CountedForkServer | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def fork_server(self) -> ForkServer | None:
        """The fork server that launches the next worker; None before the session has lost one."""
        return None if self._counted is None else self._counted.fork_server

    def launch(self, config: WorkerConfig) -> Worker:
        """Start a worker, by a fork if there is a fork server. Has the type `Launch`.

        Raises:
            SpawnError: as `spawn` does.
        """
        if config.confinement == "strict":
            return self._spawner.launch(config)
        self._launched += 1
        if self._launched > 1 and self._counted is None and _is_forkable(config):
            self._counted = _find(config)
            if self._counted is None and self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_START_DELAY, self._acquire_fork_server, config)
        return spawn(config) if self._counted is None else self._counted.fork_server.launch(config)

    def _acquire_fork_server(self, config: WorkerConfig) -> None:
        self._timer = None
        if self._counted is None:
            # `launch` may have found another session's fork server meanwhile.
            self._counted = _find(config) or _create(config)

    def close(self) -> None:
        """Release the fork server, which ends when its last session releases it. Idempotent."""
        self._spawner.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counted, self._counted = self._counted, None
        if counted is not None:
            counted.release()


class _CountedForkServer:
    """A fork server, and how many sessions use it."""

    def __init__(self, config: WorkerConfig, all_of_loop: "list[_CountedForkServer]") -> None:
        self.fork_server = ForkServer(config)
        self._users = 1
        self._all_of_loop = all_of_loop
        self._all_of_loop.append(self)
        self.fork_server.start()

    def acquire(self) -> "_CountedForkServer":
        self._users += 1
        return self

    def release(self) -> None:
        self._users -= 1
        if not self._users:
            self._all_of_loop.remove(self)
            self.fork_server.close()


def _is_forkable(config: WorkerConfig) -> bool:
    return not config.warm


_servers_of_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, list[_CountedForkServer]]] = (
    WeakKeyDictionary()
)


def _find(config: WorkerConfig) -> _CountedForkServer | None:
    """Return the running loop's fork server for a configuration, acquired; None if there is none."""
    for counted in _servers_of_loop.get(asyncio.get_running_loop(), ()):
        if counted.fork_server.config == config:
            return counted.acquire()
    return None


def _create(config: WorkerConfig) -> _CountedForkServer:
    return _CountedForkServer(config, _servers_of_loop.setdefault(asyncio.get_running_loop(), []))
