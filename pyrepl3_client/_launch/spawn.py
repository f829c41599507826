"""A worker as a child process: spawn it, wake it, kill it, reap it."""

import os
import signal
import subprocess
from contextlib import suppress
from resource import RUSAGE_SELF, getrusage
from time import time
from typing import Final

from pyrepl3_client._launch.directories import WorkerDirectories
from pyrepl3_client._launch.environment import confinement_argument, worker_environment
from pyrepl3_client._launch.interpreter import describe_failure, interpreter_command
from pyrepl3_client._launch.launcher import LaunchRequest, launcher_environment
from pyrepl3_client._launch.policy_paths import HeldPath, PolicyPaths, close_held
from pyrepl3_client._launch.process_tree import children_of, kill_all, session_pids
from pyrepl3_client._launch.shared_segments import remove_segments, segments_since
from pyrepl3_client._launch.standing_launcher import StandingLauncher, launcher_of_loop
from pyrepl3_client._launch.worker import ExitStatus, NewWorkerPipes, WorkerPipes
from pyrepl3_client._launch.writable_paths import check_writable
from pyrepl3_client.config import SandboxPolicy, WorkerConfig
from pyrepl3_client.errors import SpawnError
from pyrepl3_schemas.constants import WAKEUP_SIGNAL

HASH_SEED: Final = "0"
"""PYTHONHASHSEED of all workers: a set of strings has the same order when a cell runs again in another one.

It stands in the environment, so that child processes of the code have it too, with the same order."""
_KIB: Final = 1024
"""Linux reports a process's peak memory in KiB (getrusage(2))."""


class WorkerProcess:
    """A worker that is a child of this process, made by `spawn` or by a fork server.

    It leads its own session and process group.
    """

    __slots__ = (
        "_has_pid_namespace", "_inherited_peak", "_leaves_segments", "_makers", "_process", "_reaped",
        "_started", "pid", "pipes",
    )  # fmt: skip

    def __init__(
        self,
        pid: int,
        pipes: WorkerPipes,
        process: subprocess.Popen[bytes] | None = None,
        *,
        has_pid_namespace: bool = False,
        leaves_segments: bool = False,
    ) -> None:
        """Own the process and the client's ends of its pipes.

        Args:
            pid: its process id.
            pipes: the client's ends, to be closed after `reap`.
            process: the `Popen` object of a spawned worker; None for a forked one.
            has_pid_namespace: the process is the outermost one of a worker in a PID namespace of its own. On
                SIGTERM it ends all processes of that namespace.
            leaves_segments: code can leave shared memory behind, which is to be removed.
        """
        self._started = time()
        self._leaves_segments = leaves_segments
        self._makers = {pid}
        self._process = process
        self._has_pid_namespace = has_pid_namespace
        self._inherited_peak = getrusage(RUSAGE_SELF).ru_maxrss
        self._reaped = False
        self.pid = pid
        self.pipes = pipes

    def wake(self) -> None:
        """Send the wake-up signal."""
        self._send_signal(WAKEUP_SIGNAL)

    def kill(self) -> None:
        """Kill the worker and every process of its group."""
        if self._reaped:
            return
        if self._has_pid_namespace:
            # The code cannot reach this process, which ends when the last one of its namespace has ended.
            self._send_signal(signal.SIGTERM)
            return
        if children_of(self.pid):
            # Children in sessions of their own are not in the worker's group, and once it is dead they are
            # not its children either.
            self._makers.update(kill_all([self.pid]))
        # The worker first, by pidfd: it leads the group, and its number stays taken until it is reaped,
        # so neither signal can reach an unrelated process.
        self._send_signal(signal.SIGKILL)
        # The group may be empty, or hold only set-user-id children of the code, which may not be killed.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill_outermost(self) -> None:
        """Kill the process itself: what is in its PID namespace dies with it (PR_SET_PDEATHSIG)."""
        self._send_signal(signal.SIGKILL)

    def reap(self) -> ExitStatus:
        """Collect the exit status. Kills what is left of the group first, while its number is still taken."""
        has_left_some = self._leaves_segments and bool(segments_since(self._started))
        if has_left_some:
            # They are in the group that is killed now, and may be no descendants any more.
            self._makers.update(session_pids(self.pid))
        self.kill()
        code = peak = None
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            # This program ignores SIGCHLD, or waits for all children itself: the exit status is lost.
            pass
        else:
            code = os.waitstatus_to_exitcode(status)
            # The kernel counts what this process had in memory when it started the worker as the worker's.
            peak = usage.ru_maxrss * _KIB if usage.ru_maxrss > self._inherited_peak else None
        if has_left_some:
            left = segments_since(self._started)
            remove_segments(each for each, maker in left.items() if maker in self._makers)
        if self._process is not None:
            # Popen must not wait for it again, nor warn that it still runs.
            self._process.returncode = code or 0
        self._reaped = True
        return (
            ExitStatus(None, -code, peak) if code is not None and code < 0 else ExitStatus(code, None, peak)
        )

    def _send_signal(self, number: signal.Signals) -> None:
        if self._reaped or self.pipes.exit_fd < 0:
            return
        # It may have ended already.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pipes.exit_fd, number)


def worker_arguments(config: WorkerConfig) -> list[str]:
    """Return a worker's command line arguments, without `--capture`."""
    given = ["--parent", str(os.getpid()), "--confine", confinement_argument(config)]
    return [*given, "--warm", ",".join(config.warm)] if config.warm else given


def interpreter_environment(config: WorkerConfig) -> dict[str, str]:
    """Return the environment of a worker's interpreter: `worker_environment` with the common hash seed.

    Only `config.env` can set another seed. The environment of this program cannot: a session may be opened
    again by a program that has another seed.
    """
    return {
        **worker_environment(config),
        "PYTHONHASHSEED": (config.env or {}).get("PYTHONHASHSEED", HASH_SEED),
    }


class Spawner:
    """Starts the workers of one session or pool: paths of their policy are resolved once, for all of them."""

    def __init__(self) -> None:
        """Resolve nothing yet."""
        self._policy: SandboxPolicy | None = None
        self._paths: PolicyPaths | None = None
        self._closed = False

    def launch(self, config: WorkerConfig) -> WorkerProcess:
        """Start a worker, as `spawn` does. Has the type `Launch`.

        Raises:
            SpawnError: as `spawn`; or a path of the policy is not what it was for the first worker.
        """
        if config.confinement != "strict":
            return spawn(config)
        if self._paths is None or config.sandbox != self._policy:
            self._resolve(config)
        assert self._paths is not None
        if not self._closed:
            return _spawn(config, self._paths.held, launcher_of_loop())
        held = self._paths.again()
        try:
            return _spawn(config, held, launcher_of_loop())
        finally:
            close_held(held)

    def _resolve(self, config: WorkerConfig) -> None:
        paths = resolve(config)
        if self._paths is not None and not self._closed:
            self._paths.close()
        self._policy, self._paths, self._closed = config.sandbox, paths, False

    def close(self) -> None:
        """Let go of the paths. Idempotent; who launches another worker gets the same ones, or an error."""
        if self._paths is not None and not self._closed:
            self._paths.close()
        self._closed = True


def resolve(config: WorkerConfig) -> PolicyPaths:
    """Resolve the paths of a policy.

    Raises:
        SpawnError: one cannot be, or must not be what it is.
    """
    try:
        check_writable(config)
        return PolicyPaths(config.sandbox)
    except (OSError, ValueError) as error:
        raise SpawnError(f"no worker could be confined: {error}") from error


def spawn(config: WorkerConfig) -> WorkerProcess:
    """Start a worker. Blocks the calling thread for a few milliseconds.

    The calling thread must live as long as the worker: the kernel kills the worker when that thread ends.

    Raises:
        SpawnError: there is no such interpreter or directory, or no room for another process or fd; or a
            path of the policy is no path for it.
    """
    if config.confinement != "strict":
        return _spawn(config, [])
    paths = resolve(config)
    try:
        return _spawn(config, paths.held)
    finally:
        paths.close()


def _spawn(
    config: WorkerConfig, paths: list[HeldPath], standing: StandingLauncher | None = None
) -> WorkerProcess:
    """Start a worker.

    Args:
        config: describes it.
        paths: those of its policy.
        standing: clones itself for a strict one, if it can.
    """
    pipes: NewWorkerPipes | None = None
    directories: WorkerDirectories | None = None
    request: LaunchRequest | None = None
    process: subprocess.Popen[bytes] | None = None
    pid: int | None = None
    environment = interpreter_environment(config)
    try:
        pipes = NewWorkerPipes()
        directories = WorkerDirectories(config)
        stdin, stdout, stderr, *captured = pipes.worker_ends
        if config.confinement == "strict":
            request = LaunchRequest(config, environment, paths, pipes.worker_ends, directories)
            command, environment = request.command(), launcher_environment()
            inherited = [request.file, *request.fds]
            if standing is not None:
                pid = standing.launch(request, directories.start, stderr)
        else:
            command = [*interpreter_command(config, "pyrepl3_worker"), *worker_arguments(config)]
            # What the interpreter runs before the worker (`sitecustomize`, .pth files) may read and print.
            command += ["--frames", f"{stdin},{stdout}", "--capture", ",".join(map(str, captured))]
            inherited = [stdin, stdout, *captured]
        if pid is None:
            # No preexec_fn and no user or group: so the child is made by vfork, however large this process
            # is.
            process = subprocess.Popen(  # noqa: S603 - running an interpreter is what this is for
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=inherited,
                start_new_session=True,
                cwd=config.start_directory,
                env=environment,
            )
            pid = process.pid
        if request is not None:
            request.write()
        exit_fd = os.pidfd_open(pid)
    except BaseException as error:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if process is not None:
            process.returncode = 0
        if pipes is not None:
            pipes.close()
        if directories is not None:
            directories.close()
        if isinstance(error, OSError | ValueError):
            raise SpawnError(describe_failure(config.python, error)) from error
        raise
    finally:
        if request is not None:
            request.close()
    # With any other configuration the process may be the worker itself, whose code can ignore SIGTERM.
    has_pid_namespace = config.confinement == "strict" and config.confinement_required
    connected = pipes.connect(exit_fd, directories)
    return WorkerProcess(
        pid,
        connected,
        process,
        has_pid_namespace=has_pid_namespace,
        leaves_segments=config.confinement == "limits",
    )
