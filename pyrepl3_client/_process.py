"""A worker as a child process: spawn, ring, kill, reap."""

import os
import signal
import subprocess
from contextlib import suppress
from typing import Final

from pyrepl3_client._worker import Ending, Ends, open_pipe
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError

DOORBELL: Final = signal.SIGURG
"""Ignored by default, so it does no harm to a process that is not ready for it yet."""


class WorkerProcess:
    """A spawned worker. Made by `spawn`; leads its own session and process group."""

    __slots__ = ("_process", "_reaped", "ends", "pid")

    def __init__(self, process: subprocess.Popen[bytes], ends: Ends) -> None:
        """Take over the process and our ends of its pipes."""
        self._process = process
        self._reaped = False
        self.pid = process.pid
        self.ends = ends

    def ring(self) -> None:
        """Send the doorbell signal."""
        self._signal(DOORBELL)

    def kill(self) -> None:
        """Kill the worker and every process of its group."""
        if self._reaped:
            return
        # The worker first, by pidfd: it leads the group, and its number stays taken until it is reaped,
        # so neither signal can hit a stranger.
        self._signal(signal.SIGKILL)
        # Nobody may be left in the group, or nobody but setuid children of the code, out of our reach.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> Ending:
        """Collect the exit status; ends what is left of the group before the number is given up."""
        self.kill()
        code = self._process.wait()
        self._reaped = True
        return Ending(code, None) if code >= 0 else Ending(None, -code)

    def _signal(self, number: signal.Signals) -> None:
        if self._reaped or self.ends.exited < 0:
            return
        # It may have ended, and wait to be reaped.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.ends.exited, number)


def spawn(config: WorkerConfig) -> WorkerProcess:
    """Start a worker. Blocks the calling thread for a few milliseconds.

    That thread must live as long as the worker may: the kernel kills the worker when it ends.

    Raises:
        SpawnError: there is no such interpreter or directory, or no room for another process or fd.
    """
    opened: list[int] = []

    def pipe() -> tuple[int, int]:
        ends = open_pipe()
        opened.extend(ends)
        return ends

    process: subprocess.Popen[bytes] | None = None
    try:
        (in_read, writer), (reader, out_write), (words, words_write) = pipe(), pipe(), pipe()
        (stdout, stdout_write), (stderr, stderr_write) = pipe(), pipe()
        command = [config.python, "-P", "-m", "pyrepl3_worker", "--parent", str(os.getpid())]
        command += ["--capture", f"{stdout_write},{stderr_write}"]
        if config.warm:
            command += ["--warm", ",".join(config.warm)]
        # No preexec_fn and no user or group: so the child comes by vfork, whatever our size.
        process = subprocess.Popen(  # noqa: S603 - running an interpreter is what this is for
            command,
            stdin=in_read,
            stdout=out_write,
            stderr=words_write,
            pass_fds=(stdout_write, stderr_write),
            start_new_session=True,
            cwd=config.cwd,
            env=None if config.env is None else {**os.environ, **config.env},
        )
        exited = os.pidfd_open(process.pid)
    except (OSError, ValueError) as error:
        if process is not None:
            process.kill()
            process.wait()
        for fd in opened:
            os.close(fd)
        raise SpawnError(f"no worker could be started with {config.python!r}: {error}") from error
    for fd in (in_read, out_write, words_write, stdout_write, stderr_write):
        os.close(fd)
    for fd in (writer, reader, words, stdout, stderr):
        os.set_blocking(fd, False)
    return WorkerProcess(process, Ends(writer, reader, stdout, stderr, words, exited))
