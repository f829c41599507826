"""Workers for a session that has lost one: the next ones are forked, not spawned, where that is safe.

A session whose worker never dies needs no template, and pays for none. When it asks for a second worker,
a template of its configuration is started a little later, and the third comes from that. All sessions of
a loop with the same configuration share one. Where modules are to be warm, workers are always spawned:
whether those may be imported once for several processes is for their user to know, and to say to a
`WorkerPool`. Without them, nothing is imported before the fork that is not ours or the standard library's.
"""

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.spawn import spawn
from pyrepl3_client._launch.worker import Worker
from pyrepl3_client.config import WorkerConfig

_START_DELAY: Final = 0.5
"""Seconds after the start of a second worker: the session is filling it, and comes first."""


class SharedForkServer:
    """Launches the workers of one session. To be used on one event loop, and closed there."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._launched = 0
        self._counted: _CountedForkServer | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def fork_server(self) -> ForkServer | None:
        """What the next worker is forked from, once the session has lost one."""
        return None if self._counted is None else self._counted.fork_server

    def launch(self, config: WorkerConfig) -> Worker:
        """Start a worker, by a fork if there is a template. A `Launch`.

        Raises:
            SpawnError: as `spawn` does.
        """
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
            # It may have found another session's meanwhile.
            self._counted = _find(config) or _create(config)

    def close(self) -> None:
        """Let go of the template; the last session that does ends it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        shared, self._counted = self._counted, None
        if shared is not None:
            shared.release()


class _CountedForkServer:
    """A template and how many sessions hold it."""

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
    return config.confinement != "strict" and not config.warm


_servers_of_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, list[_CountedForkServer]]] = (
    WeakKeyDictionary()
)


def _find(config: WorkerConfig) -> _CountedForkServer | None:
    """Find this loop's template for a configuration, and hold it."""
    for shared in _servers_of_loop.get(asyncio.get_running_loop(), ()):
        if shared.fork_server.config == config:
            return shared.acquire()
    return None


def _create(config: WorkerConfig) -> _CountedForkServer:
    return _CountedForkServer(config, _servers_of_loop.setdefault(asyncio.get_running_loop(), []))
