"""Enters new namespaces, with a keeper process outside and an init process inside.

    parent ── keeper ─┬─ init     process 1 of the namespace: collects orphans
                      └─ worker   process 2: `enter` returns in it

The keeper is the process that the parent started, and the only one that the parent knows. It forwards the
wake-up signal to the worker. When the worker ends, it ends in the same way, and kills init; when init
ends, the kernel kills every process in the namespace, also those that left the worker's session or
process tree. The user's code can neither see nor signal the keeper.
"""

from __future__ import annotations

import _socket  # not `socket`, which takes as long to import as all of this room
import fcntl
import os
import resource
import select
import signal
import struct

from pyrepl3_schemas.constants import WAKEUP_SIGNAL
from pyrepl3_worker.confinement import syscalls

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Final, NoReturn

_KEEPER_SIGNALS: Final = (signal.SIGCHLD, WAKEUP_SIGNAL, signal.SIGTERM)
_MAX_FDS: Final = 1 << 20
_QUOTAS: Final = (("max_inotify_instances", 16), ("max_inotify_watches", 4096))
_MAX_TCP_BUFFER: Final = 425_984
"""Bytes: what a socket can ask for where the machine's settings are the kernel's own."""
_MAX_TIMERS: Final = 1024
"""Timers and signals that wait, at a time."""
_NAMESPACE_FLAGS: Final = (
    os.CLONE_NEWUSER
    | os.CLONE_NEWNS
    | os.CLONE_NEWPID
    | os.CLONE_NEWIPC
    | os.CLONE_NEWUTS
    | os.CLONE_NEWCGROUP
)


def enter(parent: int | None) -> None:
    """Enter new namespaces: return in a child of the calling process, which becomes its keeper.

    The network namespace is entered by `leave_network`.

    Args:
        parent: the process that started this one.

    Raises:
        OSError: the kernel or its settings do not allow it; nothing has changed.
    """
    uid, gid = os.getuid(), os.getgid()
    os.unshare(_NAMESPACE_FLAGS)
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
    # Signals that arrive from now on stay pending: an early wake-up signal is forwarded too.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _KEEPER_SIGNALS)
    init = os.fork()
    if init == 0:
        _run_init(keeper)
    worker = os.fork()
    if worker != 0:
        _run_keeper(init, worker)
    _die_with_keeper(keeper)
    os.close(keeper)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_network() -> None:
    """Enter a network namespace that has only its own loopback. It needs the capabilities of `enter`.

    Raises:
        OSError: the kernel or its settings do not allow it.
    """
    os.unshare(os.CLONE_NEWNET)
    # The worker's processes may connect to each other; no others are in this network.
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(probe.fileno(), 0x8914, struct.pack("16sH14x", b"lo", 1))
    finally:
        probe.close()
    for name in ("tcp_rmem", "tcp_wmem"):
        _lower_largest(f"/proc/sys/net/ipv4/{name}")


def _lower_largest(path: str) -> None:
    """Lower the size to which the kernel itself lets a TCP buffer grow: what it holds counts as no memory."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # this kernel does not let it be lowered
    try:
        sizes = [min(int(word), _MAX_TCP_BUFFER) for word in os.read(fd, 100).split()]
        os.pwrite(fd, " ".join(map(str, sizes)).encode(), 0)
    except OSError:
        return  # as above
    finally:
        os.close(fd)


def limit_quotas() -> None:
    """Leave most of what the kernel grants to a user as a whole to the user's other processes.

    It needs the capabilities of `enter`. What the kernel does not let be lowered stays as it is.
    """
    for name, value in _QUOTAS:
        try:
            fd = os.open(f"/proc/sys/user/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(value).encode())
            finally:
                os.close(fd)
        except OSError:
            continue
    hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)[1]
    most = _MAX_TIMERS if hard == resource.RLIM_INFINITY else min(hard, _MAX_TIMERS)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (most, most))


def _die_with_keeper(keeper: int) -> None:
    """Have the kernel kill this process when the keeper ends; `keeper` is a pidfd: its pid is hidden."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    poller = select.poll()
    poller.register(keeper, select.POLLIN)
    if poller.poll(0):
        os._exit(0)


def _run_init(keeper: int) -> NoReturn:
    """Run as init: collect the exit statuses of orphans, until the keeper or this process is killed."""
    _die_with_keeper(keeper)
    # Neither ptrace nor /proc/1/mem can reach this process then.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.setsid()
    os.closerange(0, _MAX_FDS)
    while True:
        signal.sigwait((signal.SIGCHLD,))
        _reap_children()


def _reap_children() -> dict[int, int]:
    """Collect the children that have ended; return their wait statuses by pid."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses
        if pid == 0:
            return statuses
        statuses[pid] = status


def _run_keeper(init: int, worker: int) -> NoReturn:
    """Run as the keeper: forward signals to the worker, and end as it ends."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.closerange(0, _MAX_FDS)
    told = False
    while True:
        number = signal.sigwait(_KEEPER_SIGNALS)
        if number == WAKEUP_SIGNAL:
            os.kill(worker, WAKEUP_SIGNAL)
        elif number == signal.SIGTERM:
            # The parent's request to kill: when init ends, everything ends.
            told = True
            os.kill(init, signal.SIGKILL)
        else:
            statuses = _reap_children()
            if init in statuses:
                # For whatever reason init ended, the kernel has killed and collected the worker before.
                _exit_with_status(statuses.get(worker, signal.SIGKILL))
            if worker in statuses:
                _end_namespace(init)
                _exit_with_status(signal.SIGKILL if told else statuses[worker])


def _end_namespace(init: int) -> None:
    """Kill init, and wait until the kernel has ended the whole namespace with it.

    Init ends only when all others of the namespace have been waited for, each by its parent. So all
    children are waited for here, not init alone: one that is not expected would hold it up for ever.
    """
    os.kill(init, signal.SIGKILL)
    while os.wait()[0] != init:
        pass


def _exit_with_status(status: int) -> NoReturn:
    """Exit in the same way as another process, by its wait status: with its code or by its signal."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = -code
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        os.kill(os.getpid(), number)
    os._exit(code if code >= 0 else 128 - code)
