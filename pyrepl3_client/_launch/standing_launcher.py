"""A launcher that stands by: strictly confined workers are its clones, and start without a Python of its own.

Each event loop on which strict workers are started has one. It is started in the background, a little after
the first of them; until it is ready, and wherever it cannot serve, each worker is started by a launcher of
its own. So no start waits for it, and none fails since it has ended. It ends when its loop is closed, with
the thread and the program, and when no worker has been started for a while.
"""

import array
import asyncio
import logging
import os
import resource
import select
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary, ref

from pyrepl3_client._launch.launcher import LaunchRequest, launcher_command, launcher_environment
from pyrepl3_client._launch.stderr_tail import StderrTail
from pyrepl3_client._launch.worker import open_pipe
from pyrepl3_client._log import write
from pyrepl3_client.errors import SpawnError

_logger: Final = logging.getLogger("pyrepl3.worker")
_START_DELAY: Final = 0.5
"""Seconds from the start of a worker to that of the launcher for the next: this one's start comes first."""
_IDLE_SECONDS: Final = 20
"""Seconds without a request after which it ends."""
_ANSWER_SECONDS: Final = 5.0
"""Seconds that a clone may take before the launcher is killed as stuck. It takes a millisecond."""
_FDS_OF_PACKET: Final = 200
"""The kernel allows 253."""
_PACKET_BYTES: Final = 4096
_READY: Final = b"ready"
_STATUS_LINES: Final = (
    "Umask:", "Uid:", "Gid:", "Groups:", "SigBlk:", "SigIgn:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:",
    "CapAmb:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "Cpus_allowed:", "Mems_allowed:",
)  # fmt: skip
"""What a process has from the one that starts it, as proc(5) shows it."""
_RLIMITS: Final = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})
_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")


_MAX_FAILURES: Final = 3
"""Launchers in a row that may end before they are ready, before no more are started in this program."""
_failures: Final[list[str]] = []
"""Why the last ones did not become ready."""


class LauncherGoneError(Exception):
    """The launcher has ended, or was killed since it did not answer."""


class _Process(NamedTuple):
    """A launcher that runs."""

    popen: subprocess.Popen[bytes]
    control: socket.socket
    stderr: int
    exit_fd: int
    """A pidfd."""
    tail: StderrTail
    state: tuple[object, ...]
    """What it has, and all its clones, from this thread and process as they were at its start."""

    def kill(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.exit_fd, signal.SIGKILL)

    def end(self) -> str:
        """Kill it, wait for its end, and close the descriptors; return the last lines of its stderr."""
        self.kill()
        self.popen.wait()
        self.tail.read_rest()
        self.close()
        return self.tail.text

    def close(self) -> None:
        """Close the descriptors."""
        self.control.close()
        os.close(self.stderr)
        os.close(self.exit_fd)


class StandingLauncher:
    """The launcher of one event loop. Use it on that loop.

    The loop owns it, by its timers and readers: when that is closed, there is no other reference to it left.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process: _Process | None = None
        self.is_ready = False
        """Whether it clones itself for the next worker."""
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self._given_up = set[int]()
        self._settled = asyncio.Event()
        if len(_failures) >= _MAX_FAILURES:
            self._settled.set()

    @property
    def pid(self) -> int | None:
        """The process id of the launcher; None when it has no process."""
        return None if self._process is None else self._process.popen.pid

    async def wait_settled(self) -> None:
        """Wait until it is ready, or is known not to be able to serve. It must have been asked before."""
        await self._settled.wait()

    def launch(self, request: LaunchRequest, directory: int, stderr: int) -> int | None:
        """Clone the launcher for a worker, in a millisecond or two.

        The worker is a child of this process. The kernel kills it when the thread ends in which this launcher
        was started, which is the loop's.

        Args:
            request: what the worker is to be.
            directory: an fd of the directory in which it starts.
            stderr: an fd for its stderr, and for what its code writes past Python before it is ready.

        Returns:
            Its pid; None if it has to be started by a launcher of its own.

        Raises:
            SpawnError: it is not known whether there is a worker by now.
        """
        process = self._process
        if process is not None and process.state != _inherited_state():
            process = None
            self._end()
        if process is None or not self.is_ready:
            self._start_later()
            return None
        if not os.access(f"/proc/self/fd/{directory}", os.X_OK):
            return None  # and the error is that of a start there
        self._number += 1
        sent = False
        try:
            self._send(process.control, [request.file, directory, stderr, *request.fds])
            sent = True
            request.write()  # while the launcher clones itself
            return self._wait_for_clone(process)
        except LauncherGoneError:
            self._end()
            self._start_later()
            return None
        except BaseException:
            if sent:
                self._given_up.add(self._number)
            else:
                self._end()  # it would take the next request's fds for the rest of this one's
            raise

    def forget(self) -> None:
        """Know of no launcher: a forked child has none of its parent's."""
        process, self._process = self._process, None
        self.is_ready, self._timer = False, None
        if process is not None:
            process.popen.returncode = 0  # it is not this process's child
            process.close()

    # --- requests ------------------------------------------------------------------------------------

    def _send(self, control: socket.socket, fds: list[int]) -> None:
        """Send a request.

        Raises:
            LauncherGoneError: the launcher has ended, or cannot be told: without all fds no clone is made.
        """
        while fds:
            packet, fds = fds[:_FDS_OF_PACKET], fds[_FDS_OF_PACKET:]
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", packet))
            text = f"{self._number}{'+' if fds else ''}".encode()
            try:
                control.sendmsg([text], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError as error:
                raise LauncherGoneError from error

    def _wait_for_clone(self, process: _Process) -> int | None:
        """Return the pid of the clone; None if the kernel refused one.

        Raises:
            LauncherGoneError: the launcher has ended, and has made no clone of this request.
            SpawnError: it is not known whether it has.
        """
        for _ in range(2):
            answer = self._wait_for_answer(process.control)
            if answer is not None:
                return None if answer.startswith(b"!") else int(answer)
            # Once it is dead, either the clone itself answers, or the stream ends.
            process.kill()
        self._end()
        raise SpawnError("the launcher of strictly confined workers did not answer; it was killed")

    def _wait_for_answer(self, control: socket.socket) -> bytes | None:
        """Return the answer to the last request; None if there is none in time.

        Raises:
            LauncherGoneError: the stream has ended.
        """
        poller = select.poll()
        poller.register(control, select.POLLIN)
        end = monotonic() + _ANSWER_SECONDS
        while poller.poll(max(0, end - monotonic()) * 1000):
            try:
                answer = control.recv(_PACKET_BYTES, socket.MSG_DONTWAIT)
            except OSError as error:
                raise LauncherGoneError from error
            if not answer:
                raise LauncherGoneError
            number, _, text = answer.partition(b" ")
            if number == str(self._number).encode():
                return text
            self._take_late_answer(answer)
        return None

    def _take_late_answer(self, answer: bytes) -> None:
        """End the clone that a request had which was given up; all else comes twice, and was read before."""
        number, _, text = answer.partition(b" ")
        if not number.isdigit() or int(number) not in self._given_up:
            return
        self._given_up.discard(int(number))
        if text.isdigit():
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(int(text), signal.SIGKILL)
                os.waitpid(int(text), 0)

    # --- the process ---------------------------------------------------------------------------------

    def _start_later(self) -> None:
        if len(_failures) >= _MAX_FAILURES:
            self._settled.set()
        elif self._process is None and self._timer is None:
            self._settled.clear()
            self._timer = asyncio.get_running_loop().call_later(_START_DELAY, self._start)

    def _start(self) -> None:
        self._timer = None
        try:
            process = self._process = _start_process()
        except (OSError, SpawnError) as error:
            self._note_failure(str(error))
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(process.control, self._on_message)
        loop.add_reader(process.exit_fd, self._on_exited)

    def _on_message(self) -> None:
        assert self._process is not None
        try:
            answer = self._process.control.recv(_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if answer == _READY:
            self.is_ready = True
            _failures.clear()
            self._settled.set()
        elif not answer:
            # `_on_exited` handles its end.
            asyncio.get_running_loop().remove_reader(self._process.control)
        elif answer.startswith(b"!"):
            _failures.extend([answer[1:].decode()] * _MAX_FAILURES)  # another one cannot do it either
            self._note_failure(answer[1:].decode())
        else:
            self._take_late_answer(answer)

    def _on_exited(self) -> None:
        was_ready, text = self.is_ready, self._end()
        if not was_ready:
            self._note_failure(f"it has ended: {text or 'without a word'}")

    def _note_failure(self, reason: str) -> None:
        """Have the next worker started by a launcher of its own; after several failures, all of them."""
        _failures.append(reason)
        self._end()
        self._settled.set()
        write(_logger, logging.INFO, "no launcher stands by for strictly confined workers: %s", reason)

    def _end(self) -> str:
        """End the process, if there is one; return the last lines of its stderr."""
        process, self._process = self._process, None
        self.is_ready = False
        if process is None:
            return ""
        if self._given_up:
            with suppress(OSError):
                while answer := process.control.recv(_PACKET_BYTES, socket.MSG_DONTWAIT):
                    self._take_late_answer(answer)
        with suppress(RuntimeError):  # the loop has ended, or runs no more
            loop = asyncio.get_running_loop()
            loop.remove_reader(process.control)
            loop.remove_reader(process.exit_fd)
        return process.end()

    def __del__(self) -> None:
        """End the process of a loop that was closed."""
        if self._process is not None:
            self._process.end()


_launchers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, ref[StandingLauncher]]] = WeakKeyDictionary()


def launcher_of_loop() -> StandingLauncher | None:
    """Return the launcher of the running loop; None if none runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    known = _launchers.get(loop)
    launcher = None if known is None else known()
    if launcher is None:
        launcher = StandingLauncher()
        _launchers[loop] = ref(launcher)
    return launcher


def _forget_all() -> None:
    for known in list(_launchers.values()):
        launcher = known()
        if launcher is not None:
            launcher.forget()
    _launchers.clear()


os.register_at_fork(after_in_child=_forget_all)


def _start_process() -> _Process:
    """Start a launcher that stands by.

    Raises:
        OSError: there is no room for another process or fd.
        SpawnError: pyrepl3 is in no folders of files.
    """
    state = _inherited_state()
    stderr = stderr_write = -1
    control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    popen: subprocess.Popen[bytes] | None = None
    try:
        stderr, stderr_write = open_pipe()
        os.set_blocking(stderr, False)
        popen = subprocess.Popen(  # noqa: S603 - running an interpreter is what this is for
            [*launcher_command(), str(os.getpid()), "--stand", str(_IDLE_SECONDS)],
            stdin=child_control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=stderr_write,
            start_new_session=True,
            cwd="/",
            env=launcher_environment(),
        )
        return _Process(popen, control, stderr, os.pidfd_open(popen.pid), StderrTail(stderr), state)
    except (OSError, SpawnError):
        control.close()
        if stderr >= 0:
            os.close(stderr)
        if popen is not None:
            popen.kill()
            popen.wait()
        raise
    finally:
        child_control.close()
        if stderr_write >= 0:
            os.close(stderr_write)


def _inherited_state() -> tuple[object, ...]:
    """Return what a launcher has from the thread and the process that start it.

    Raises:
        OSError: there is no room for another fd.
        SpawnError: pyrepl3 is in no folders of files.
    """
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        status = [line for line in file if line.startswith(_STATUS_LINES)]
    with open("/proc/self/cgroup", "rb") as file:
        groups = file.read()
    with open("/proc/self/oom_score_adj", "rb") as file:
        score = file.read()
    root = os.stat("/")
    return (
        threading.get_native_id(),
        tuple(status),
        groups,
        score,
        tuple(os.readlink(f"/proc/thread-self/ns/{name}") for name in _NAMESPACES),
        (root.st_dev, root.st_ino),
        tuple(resource.getrlimit(number) for number in _RLIMITS),
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getscheduler(0),
        tuple(launcher_command()),
        tuple(launcher_environment().items()),
    )
