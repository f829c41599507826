"""A worker as a child process: spawn, ring, kill, reap."""

import os
import signal
import subprocess
from contextlib import suppress
from typing import Final

from pyrepl3_client._launch.environment import confinement_argument, worker_environment
from pyrepl3_client._launch.process_tree import children_of, kill_all
from pyrepl3_client._launch.worker import ExitStatus, WorkerPipes, open_pipe
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError

WAKEUP_SIGNAL: Final = signal.SIGURG
"""Ignored by default, so it does no harm to a process that is not ready for it yet."""
HASH_SEED: Final = "0"
"""The same for all workers: a set of texts has the same order when a cell is run again in another one.

In the environment, so that child processes of the code have it too, and sets keep their order there."""
_KIB: Final = 1024
"""Linux gives a process's peak memory in these (getrusage(2))."""


class WorkerProcess:
    """A worker that is our child. Made by `spawn`, or by a template; leads its own session and group."""

    __slots__ = ("_has_pid_namespace", "_process", "_reaped", "pid", "pipes")

    def __init__(
        self,
        pid: int,
        pipes: WorkerPipes,
        process: subprocess.Popen[bytes] | None = None,
        *,
        has_pid_namespace: bool = False,
    ) -> None:
        """Take over the process and our ends of its pipes.

        `process`: what holds it, too, unless it was forked by a template.
        `kept`: the process is the keeper of a worker in a PID namespace, which SIGTERM tells to end it all.
        """
        self._process = process
        self._has_pid_namespace = has_pid_namespace
        self._reaped = False
        self.pid = pid
        self.pipes = pipes

    def wake(self) -> None:
        """Send the doorbell signal."""
        self._send_signal(WAKEUP_SIGNAL)

    def kill(self) -> None:
        """Kill the worker and every process of its group."""
        if self._reaped:
            return
        if self._has_pid_namespace:
            # Out of the code's reach, and it ends when the last process of its namespace has.
            self._send_signal(signal.SIGTERM)
            return
        if children_of(self.pid):
            # Those in sessions of their own are in no group of ours, and nobody's children once it is dead.
            kill_all([self.pid])
        # The worker first, by pidfd: it leads the group, and its number stays taken until it is reaped,
        # so neither signal can hit a stranger.
        self._send_signal(signal.SIGKILL)
        # Nobody may be left in the group, or nobody but setuid children of the code, out of our reach.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> ExitStatus:
        """Collect the exit status; ends what is left of the group before the number is given up."""
        self.kill()
        code = peak = None
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            # This program ignores SIGCHLD, or waits for all children itself: how it ended is not to be known.
            pass
        else:
            code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * _KIB
        if self._process is not None:
            # Popen must not wait for it again, nor warn that nobody did.
            self._process.returncode = code or 0
        self._reaped = True
        return (
            ExitStatus(None, -code, peak) if code is not None and code < 0 else ExitStatus(code, None, peak)
        )

    def _send_signal(self, number: signal.Signals) -> None:
        if self._reaped or self.pipes.exit_fd < 0:
            return
        # It may have ended, and wait to be reaped.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pipes.exit_fd, number)


def worker_arguments(config: WorkerConfig) -> list[str]:
    """Give a worker's command line, without the fds."""
    given = ["--parent", str(os.getpid()), "--confine", confinement_argument(config)]
    return [*given, "--warm", ",".join(config.warm)] if config.warm else given


def interpreter_environment(config: WorkerConfig) -> dict[str, str]:
    """Give the environment that an interpreter starts with: a worker's, with the hash seed of all workers.

    Only `config.env` can give another one. Ours cannot: a session may be opened again by a program with
    another.
    """
    return {
        **worker_environment(config),
        "PYTHONHASHSEED": (config.env or {}).get("PYTHONHASHSEED", HASH_SEED),
    }


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
        command = [config.python, "-P", "-m", "pyrepl3_worker", *worker_arguments(config)]
        command += ["--capture", f"{stdout_write},{stderr_write}"]
        # No preexec_fn and no user or group: so the child comes by vfork, whatever our size.
        process = subprocess.Popen(  # noqa: S603 - running an interpreter is what this is for
            command,
            stdin=in_read,
            stdout=out_write,
            stderr=words_write,
            pass_fds=(stdout_write, stderr_write),
            start_new_session=True,
            cwd=config.cwd,
            env=interpreter_environment(config),
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
    # Elsewhere the process may be the worker itself, whose code can ignore SIGTERM.
    kept = config.confinement == "strict" and config.confinement_required
    ends = WorkerPipes(writer, reader, stdout, stderr, words, exited)
    return WorkerProcess(process.pid, ends, process, has_pid_namespace=kept)
