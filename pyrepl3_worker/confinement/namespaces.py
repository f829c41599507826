"""Namespaces of one's own, with a keeper outside and an init inside.

    parent ── keeper ─┬─ init     process 1 of the namespace: collects orphans
                      └─ worker   process 2: goes on from here

The keeper is the process that the parent started, and all that the parent knows. It hands on the wake-up
signal, ends as the worker ended, and takes init with it; when init ends, the kernel kills whatever is in
the namespace, also what left its session and its parent. The code can neither see nor signal the keeper.
"""

import os
import resource
import select
import signal
from typing import Final, NoReturn

from pyrepl3_schemas.constants import WAKEUP_SIGNAL
from pyrepl3_worker.confinement import syscalls

_HEARD: Final = (signal.SIGCHLD, WAKEUP_SIGNAL, signal.SIGTERM)
_MOST_FDS: Final = 1 << 20
_BASE: Final = (
    os.CLONE_NEWUSER
    | os.CLONE_NEWNS
    | os.CLONE_NEWPID
    | os.CLONE_NEWIPC
    | os.CLONE_NEWUTS
    | os.CLONE_NEWCGROUP
)


def enter(parent: int | None) -> None:
    """Go on in new namespaces, as a child of the calling process, which keeps it. `leave_network` is apart.

    Args:
        parent: the process that started this one.

    Raises:
        OSError: the kernel or its settings do not allow it; nothing has changed.
    """
    uid, gid = os.getuid(), os.getgid()
    os.unshare(_BASE)
    for name, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(0)
    if os.getsid(0) != os.getpid():
        os.setsid()
    keeper = os.pidfd_open(os.getpid())
    # What comes from now on is not lost: a wake-up signal sent early is handed on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    init = os.fork()
    if init == 0:
        _collect(keeper)
    worker = os.fork()
    if worker != 0:
        _keep(init, worker)
    _follow(keeper)
    os.close(keeper)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_network() -> None:
    """Have a network of one's own: nothing there but one's own loopback. Needs the capabilities of `enter`.

    Raises:
        OSError: the kernel or its settings do not allow it.
    """
    import fcntl
    import socket
    import struct

    os.unshare(os.CLONE_NEWNET)
    # The code's own processes may talk to each other; nobody else is in this network.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 1))


def _follow(keeper: int) -> None:
    """Have the kernel end this process with the keeper, which no number names in here."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    poller = select.poll()
    poller.register(keeper, select.POLLIN)
    if poller.poll(0):
        os._exit(0)


def _collect(keeper: int) -> NoReturn:
    """Be init."""
    _follow(keeper)
    # Out of reach of ptrace and /proc/1/mem.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.setsid()
    os.closerange(0, _MOST_FDS)
    while True:
        signal.sigwait((signal.SIGCHLD,))
        _reap()


def _reap() -> dict[int, int]:
    """Give the exit statuses of the children that have ended, by pid."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses
        if pid == 0:
            return statuses
        statuses[pid] = status


def _keep(init: int, worker: int) -> NoReturn:
    """Be the keeper."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.closerange(0, _MOST_FDS)
    told = False
    while True:
        number = signal.sigwait(_HEARD)
        if number == WAKEUP_SIGNAL:
            os.kill(worker, WAKEUP_SIGNAL)
        elif number == signal.SIGTERM:
            # The parent's way to kill: init's end is the end of all.
            told = True
            os.kill(init, signal.SIGKILL)
        else:
            statuses = _reap()
            if init in statuses:
                # Whatever ended it, the kernel has ended and collected the worker before.
                _end_as(statuses.get(worker, signal.SIGKILL))
            if worker in statuses:
                os.kill(init, signal.SIGKILL)
                os.waitpid(init, 0)
                _end_as(signal.SIGKILL if told else statuses[worker])


def _end_as(status: int) -> NoReturn:
    """End as another process did, by its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = -code
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        os.kill(os.getpid(), number)
    os._exit(code if code >= 0 else 128 - code)
