"""Stands by with all modules imported, and clones itself for each strictly confined worker.

    client ─┬─ this process
            └─ its clone, which becomes a worker (see `become`): a child of the client, too

It has one thread, and nothing of any session: a request and its fds are received just before the clone, and
closed here just after it. Nothing is read from files between two workers. It ends with the client, and when
it has had nothing to do for a while.
"""

import _socket
import fcntl
import gc
import os
import select
import signal

from pyrepl3_worker.confinement import seccomp, syscalls
from pyrepl3_worker.fork_server.clone import CannotCloneError, Cloner

_PRELOADED = ("pyrepl3_worker.confinement.strict", "pyrepl3_worker.launcher.become")
"""What a clone needs; imported here, it costs once."""
_LOWEST_FD = 3
_INT_BYTES = 4
_PACKET_BYTES = 64
_MAX_FDS = 253
"""What one packet can carry (SCM_MAX_FD)."""
_FLAGS = _socket.MSG_CMSG_CLOEXEC | _socket.MSG_NOSIGNAL


def stand_by(parent: int, idle_seconds: int) -> tuple[int, list[int]]:
    """Clone this process for each request that comes on fd 0. Return in the clones only.

    A request is one packet or several, whose text is its number; `+` behind that says that more fds follow.
    The fds are: a file with what the worker is to be, its directory, its stderr, and those of
    `become.read_request`. The answer is its number, and the pid of the clone or `!` and why there is none.
    Both the clone and this process send it, since either may be killed before it does.

    Args:
        parent: pid of the client.
        idle_seconds: how long this process waits for a request before it ends.

    Returns:
        The file of the request, and the worker's fds.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    control = _socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD))
    control.setblocking(True)  # a program's default timeout makes it another kind
    os.dup2(1, 0)  # /dev/null
    # No process of the same user is to trace it, or to take its fds.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    for name in _PRELOADED:
        __import__(name)
    try:
        cloner = Cloner()
        seccomp.build_ahead()
    except (CannotCloneError, OSError) as error:
        _send(control, f"!{error}")
        os._exit(0)
    # What is there now stays: no collection is to touch, and so to copy, the pages of all clones.
    gc.collect()
    gc.freeze()
    gc.disable()  # a clone lives for milliseconds before it is another program, or does next to nothing
    _send(control, "ready")
    poller = select.poll()
    poller.register(control.fileno(), select.POLLIN)
    while poller.poll(idle_seconds * 1000):
        number, fds, reason = _receive(control)
        if not reason:
            try:
                pid = cloner.clone()
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                _send(control, f"{number} {pid or os.getpid()}")
                if pid == 0:
                    control.close()
                    return _take_over(fds)
        if reason:
            _send(control, f"{number} !{reason}")
        for fd in fds:
            os.close(fd)
    os._exit(0)


def _receive(control: _socket.socket) -> tuple[str, list[int], str]:
    """Return the number of the next request, its fds, and why they are not all there; end with the client."""
    fds: list[int] = []
    reason = ""
    while True:
        packet, ancillary, flags, _ = control.recvmsg(
            _PACKET_BYTES, _socket.CMSG_SPACE(_MAX_FDS * _INT_BYTES), _FLAGS
        )
        if not packet:
            os._exit(0)
        for _, _, data in ancillary:
            fds += memoryview(data[: len(data) // _INT_BYTES * _INT_BYTES]).cast("i")
        if flags & _socket.MSG_CTRUNC:
            reason = "the launcher has no room for more fds"
        text = packet.decode()
        if not text.endswith("+"):
            return text, fds, reason


def _take_over(fds: list[int]) -> tuple[int, list[int]]:
    """Have the clone be what a process is that the client has started for one request alone."""
    # In a process that is not, /proc/self belongs to root, and no user namespace could be set up.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    request, directory, stderr, *others = fds
    os.setsid()
    os.fchdir(directory)
    os.dup2(stderr, 1)
    os.dup2(stderr, 2)
    os.close(directory)
    os.close(stderr)
    return request, others


def _send(control: _socket.socket, text: str) -> None:
    try:
        control.send(text.encode(), _socket.MSG_NOSIGNAL)
    except OSError:
        return  # the client is gone
