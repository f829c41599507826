"""A monitor of a worker's whole process tree, for the limits that the kernel keeps for one process alone.

A control group would do it better, but only root may write to one, or a user whom systemd has given a
subtree. So the client, which the code cannot stop, takes samples: ten times a second while code runs or the
tree has other processes, ever more rarely while neither is so. It takes none unless memory or CPU time are
limited, and never spends more than a tenth of the time on it, however large the tree.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from pyrepl3_client._launch.process_tree import ProcessTree
from pyrepl3_client._wire.connection import Connection
from pyrepl3_client._worker.death_cause import limit_reason
from pyrepl3_client.config import ResourceLimits, WorkerConfig

_BUSY_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 2.0
"""Most between two samples of a worker that runs nothing: a thread of its code may start processes."""
_SHARE: Final = 10
"""A sample is followed by a pause of at least so many times its own duration."""
_WIDE: Final = 10
"""One sample of so many is a full one; see `ProcessTree.sample`."""


class TreeLimitMonitor:
    """Takes samples of one worker's tree until the worker ends."""

    def __init__(
        self, connection: Connection, tree: ProcessTree, limits: ResourceLimits, busy: Callable[[], str]
    ) -> None:
        """Run on the running loop; `busy` returns in words what the worker is doing, empty for nothing."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._tree = tree
        self._memory = limits.max_memory_bytes
        self._cpu = limits.max_cpu_seconds
        self._busy = busy
        self._checks = 0
        self._pause = _BUSY_SECONDS
        self._timer = self._loop.call_later(_BUSY_SECONDS, self._check)
        connection.writer.on_write = self.wake
        connection.exited.add_done_callback(self._on_ended)

    def wake(self) -> None:
        """Take a sample soon: something was sent to the worker."""
        if self._pause > _BUSY_SECONDS and not self._connection.exited.done():
            self._timer.cancel()
            self._pause = _BUSY_SECONDS
            self._timer = self._loop.call_later(_BUSY_SECONDS, self._check)

    def _check(self) -> None:
        began = self._loop.time()
        self._checks += 1
        usage = self._tree.sample(full=self._checks % _WIDE == 0)
        if self._cpu is not None and usage.cpu_seconds > self._cpu:
            used = f"{usage.cpu_seconds:.1f} s of CPU time"
            self._end(limit_reason("max_cpu_seconds", self._cpu, used, usage.processes))
            return
        if self._memory is not None and usage.memory > self._memory:
            memory = self._tree.proportional_memory()
            if memory > self._memory:
                used = f"{memory / 1e6:,.0f} MB of memory"
                self._end(limit_reason("max_memory_bytes", self._memory, used, usage.processes))
                return
        if usage.processes > 1 or self._busy():
            self._pause = _BUSY_SECONDS
        else:
            self._pause = min(self._pause * 2, _IDLE_SECONDS)
        pause = max(self._pause, _SHARE * (self._loop.time() - began))
        self._timer = self._loop.call_later(pause, self._check)

    def _end(self, reason: str) -> None:
        self._connection.kill(reason)
        self._tree.kill()

    def _on_ended(self, _: object) -> None:
        self._timer.cancel()
        # Members that had left the worker's group and lost their parent.
        self._tree.kill()


def watch_tree(connection: Connection, config: WorkerConfig, busy: Callable[[], str]) -> ProcessTree:
    """Hold a worker's tree to the limits of its configuration, if it has any that a tree can exceed.

    Returns:
        The tree.
    """
    kept = config.confinement == "strict" and config.confinement_required
    tree = ProcessTree(connection.worker.pid, has_pid_namespace=kept)
    limits = config.limits
    limited = limits.max_memory_bytes is not None or limits.max_cpu_seconds is not None
    if config.confinement != "none" and limited:
        TreeLimitMonitor(connection, tree, limits, busy)
    return tree
