"""Whether a process may be forked: what modules left behind that a copy would not have, or would share.

A copy has one thread, so what other threads did stands still in it, with their locks held. Open files and
sockets, shared memory and child processes would belong to all copies at once: their offsets, their
protocols, their semaphores.
"""

import ctypes
import os
import select
import signal
import sys
from typing import Final, NamedTuple

_HARMLESS: Final = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_CHILD_EXIT_TIMEOUT_MS: Final = 1000


class ProcessResources(NamedTuple):
    """What the process holds beside its private memory: fds, shared memory, child processes."""

    fds: dict[int, str]
    """By number, what each is open on."""
    shared: frozenset[str]
    """Writable memory shared with other processes, by the name of what is mapped."""
    children: bool

    @classmethod
    def now(cls) -> "ProcessResources":
        """Return what this process holds now."""
        fds: dict[int, str] = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                continue  # the list's own
        return cls(fds, frozenset(_shared_maps()), _has_children())

    def left_since(self, before: "ProcessResources") -> str:
        """Return a text about what is new since `before` and must not be copied; empty if nothing is."""
        for fd, target in self.fds.items():
            if before.fds.get(fd) != target and target not in _HARMLESS:
                return f"left fd {fd} open ({target})"
        for name in self.shared - before.shared:
            return f"left shared memory mapped ({name})"
        return "left a child process" if self.children and not before.children else ""


def thread_count() -> int:
    """Return how many threads this process has, Python's or not."""
    return len(os.listdir("/proc/self/task"))


def stop_native_threads() -> str:
    """End the threads of libraries that handle forks; return a text about those left, empty if none.

    OpenBLAS (NumPy, SciPy) ends its threads before a fork, by pthread_atfork, and starts them again when
    it next needs them. So a fork in vain leaves it without.
    """
    if thread_count() == 1:
        return ""
    python = len(sys._current_frames())  # pyright: ignore[reportPrivateUsage] - its documented name
    if python > 1:
        return f"started {python - 1} Python thread{'' if python == 2 else 's'}{_thread_names()}"
    # Not os.fork, which would run Python's hooks and warn: nothing of Python is to run in that child.
    libc = ctypes.PyDLL(None)
    pid: int = libc.fork()
    if pid == 0:
        os._exit(0)
    if pid > 0:
        _reap_child(pid)
    left = thread_count() - 1
    return f"started {left} thread{'' if left == 1 else 's'} that a fork does not end" if left else ""


def _reap_child(pid: int) -> None:
    """Wait for the forked child, and kill it when it hangs: a Python thread may just have started."""
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    if not poller.poll(_CHILD_EXIT_TIMEOUT_MS):
        os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    os.waitpid(pid, 0)


def _thread_names() -> str:
    if "threading" not in sys.modules:
        return ""
    import threading

    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return f" ({', '.join(names)})" if names else ""


def _shared_maps() -> list[str]:
    with open("/proc/self/maps") as maps:
        fields = [line.split(maxsplit=5) for line in maps]
    return [line[5].strip() if len(line) > 5 else "anonymous" for line in fields if line[1][1::2] == "ws"]


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
