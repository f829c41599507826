"""The fork server: a process that has imported what workers need, and forks itself for each of them.

    python -P -m pyrepl3_worker.fork_server PARENT [MODULE ...]

Its stdin is a SOCK_SEQPACKET socket to the client (see `pyrepl3_schemas.fork_server`). It ends
with the client.
"""

from pyrepl3_worker.isolation import private_builtins

# As in a worker, and before `contextlib`.
private_builtins.install()

from pyrepl3_worker.isolation import late_imports

late_imports.import_asyncio_and_msgspec()

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import socket
import sys
from typing import Final, NoReturn

from pyrepl3_schemas.fork_server import (
    FORK_FDS,
    MAX_PACKET_BYTES,
    CanFork,
    CannotFork,
    Forked,
    FromForkServer,
    NotForked,
    decode_request,
    encode_packet,
)
from pyrepl3_worker.fork_server.clone import CannotCloneError, Cloner, set_traceable
from pyrepl3_worker.fork_server.fork_safety import ProcessResources, stop_native_threads, thread_count
from pyrepl3_worker.fork_server.forked_worker import WorkerLaunch, become_worker
from pyrepl3_worker.isolation import own_imports
from pyrepl3_worker.startup.serve import die_with_parent

_MIN_CONTROL_FD: Final = 512
_PRELOADED: Final = (
    "pyrepl3_worker.checkpoint.checkpointer",
    "pyrepl3_worker.confinement.rlimits",
    "pyrepl3_worker.confinement.siblings",
    "pyrepl3_worker.confinement.apply",
)
"""Modules that workers need late, or only some of them; imported here, they cost once."""
_INT_BYTES: Final = 4


class CannotForkError(Exception):
    """This process must not be copied; the text says why."""


def main() -> NoReturn:
    """Run a fork server; in each process that it forks, run a worker."""
    # Only for its readers: a worker handles this signal as Python does.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _MIN_CONTROL_FD))
    os.dup2(1, 0)  # /dev/null
    _, parent, *modules = sys.argv
    die_with_parent(int(parent))
    sys.argv[:] = [""]  # as in a worker: warm modules may look at it
    try:
        cloner = Cloner()
        import_modules(modules)
    except (CannotForkError, CannotCloneError) as error:
        _send(control, CannotFork(str(error)))
        os._exit(0)
    # What is there now stays: no collection is to touch, and so to copy, the pages of all workers.
    gc.collect()
    gc.freeze()
    # What code of a worker changed here, all later workers would have.
    set_traceable(traceable=False)
    _send(control, CanFork())
    launch = serve_requests(control, cloner)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    become_worker(launch)


def import_modules(modules: list[str]) -> None:
    """Import what workers will need.

    Raises:
        CannotForkError: a module can't be imported, or left something that must not be copied.
    """
    loaded = set(sys.modules)
    for name in _PRELOADED:
        __import__(name)  # as a statement, which finds what is lent
    own_imports.set_aside(set(sys.modules) - loaded)
    before = ProcessResources.now()
    # As in a worker: modules in the working directory come first.
    sys.path.insert(0, "")
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise CannotForkError(
                f"warm module {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        left = stop_native_threads() or ProcessResources.now().left_since(before)
        if left:
            raise CannotForkError(f"warm module {name!r} {left}")
    with contextlib.suppress(ValueError):
        sys.path.remove("")  # each worker puts it there itself
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def serve_requests(control: socket.socket, cloner: Cloner) -> WorkerLaunch:
    """Fork a worker for each request. Return in the workers only; end with the client."""
    while True:
        packet, fds = _receive(control)
        if not packet:
            os._exit(0)
        request = decode_request(packet)
        try:
            if thread_count() > 1:
                raise OSError("the fork server has started a thread since it was ready")  # noqa: TRY301 - told alike
            pid = cloner.clone()
        except OSError as error:
            _send(control, NotForked(request.number, str(error)))
        else:
            _send(control, Forked(request.number, pid or os.getpid()))
            if pid == 0:
                control.close()
                return WorkerLaunch(fds, request.arguments)
        for fd in fds:
            os.close(fd)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(len(FORK_FDS) * _INT_BYTES)
    packet, ancillary, _, _ = control.recvmsg(MAX_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    fds = [
        int.from_bytes(data[at : at + _INT_BYTES], sys.byteorder)
        for _, _, data in ancillary
        for at in range(0, len(data), _INT_BYTES)
    ]
    return packet, fds


def _send(control: socket.socket, message: FromForkServer) -> None:
    # The client may be gone.
    with contextlib.suppress(OSError):
        control.send(encode_packet(message), socket.MSG_NOSIGNAL)


if __name__ == "__main__":
    main()
