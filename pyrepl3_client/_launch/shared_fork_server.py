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

_CALM: Final = 0.5
"""Seconds after the start of a second worker: the session is filling it, and comes first."""


class SharedForkServer:
    """Launches the workers of one session. To be used on one event loop, and closed there."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._launched = 0
        self._shared: _Shared | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def fork_server(self) -> ForkServer | None:
        """What the next worker is forked from, once the session has lost one."""
        return None if self._shared is None else self._shared.fork_server

    def launch(self, config: WorkerConfig) -> Worker:
        """Start a worker, by a fork if there is a template. A `Launch`.

        Raises:
            SpawnError: as `spawn` does.
        """
        self._launched += 1
        if self._launched > 1 and self._shared is None and _may_fork(config):
            self._shared = _shared(config)
            if self._shared is None and self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_CALM, self._prepare, config)
        return spawn(config) if self._shared is None else self._shared.fork_server.launch(config)

    def _prepare(self, config: WorkerConfig) -> None:
        self._timer = None
        if self._shared is None:
            # It may have found another session's meanwhile.
            self._shared = _shared(config) or _new(config)

    def close(self) -> None:
        """Let go of the template; the last session that does ends it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.release()


class _Shared:
    """A template and how many sessions hold it."""

    def __init__(self, config: WorkerConfig, all_of_loop: "list[_Shared]") -> None:
        self.fork_server = ForkServer(config)
        self._holders = 1
        self._all = all_of_loop
        self._all.append(self)
        self.fork_server.start()

    def hold(self) -> "_Shared":
        self._holders += 1
        return self

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._all.remove(self)
            self.fork_server.close()


def _may_fork(config: WorkerConfig) -> bool:
    return config.confinement != "strict" and not config.warm


_of_loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Shared]]] = WeakKeyDictionary()


def _shared(config: WorkerConfig) -> _Shared | None:
    """Find this loop's template for a configuration, and hold it."""
    for shared in _of_loops.get(asyncio.get_running_loop(), ()):
        if shared.fork_server.config == config:
            return shared.hold()
    return None


def _new(config: WorkerConfig) -> _Shared:
    return _Shared(config, _of_loops.setdefault(asyncio.get_running_loop(), []))
