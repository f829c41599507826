"""Stdio: moves the process's standard fds away before anything can print.

The protocol's fds move to high numbers, close-on-exec, where code that closes or writes to "all"
low fds does not meet them. Fd 0 becomes /dev/null; fds 1 and 2 become the capture pipes.
"""

import fcntl
import os
import resource
import select
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import msgspec

_PRIVATE_FD_BASE: Final = 512
_MIN_RANDOM_FD: Final = 2048
_FDS_NEEDED: Final = 16
_MAX_FD: Final = 16 * 1024
"""The kernel keeps a table up to the highest fd, of 8 bytes each; past this it would be a waste."""
_PIPE_BYTES: Final = 1024 * 1024
_F_SETPIPE_SZ: Final = 1031


class Stdio(msgspec.Struct, frozen=True):
    """The fds of a worker, all but 0, 1 and 2 above the reach of careless code."""

    reader: int
    """Frames from the client; non-blocking."""
    writer: int
    """Frames to the client."""
    stderr: int
    """The original stderr, for the worker's own messages."""
    null: int
    """/dev/null, kept to reopen fd 0."""
    captured: tuple[int, int]
    """Write ends behind fds 1 and 2, kept to reopen them and to ask what waits there."""
    drained: tuple[int, int] | None
    """Read ends behind fds 1 and 2 when the client does not drain them, so this process must."""

    unread_probes: tuple[int, int] | None
    """Read ends behind fds 1 and 2 that are never read: they only tell that something waits for the client.
    None where this process drains, or may not open them."""

    poller: select.poll
    """Checks fds 0, 1 and 2 and the `unread_probes` with one system call."""

    def repair(self) -> bool:
        """Reopen those of fds 0, 1 and 2 that the code has closed. A redirected one stays.

        Returns:
            Whether something may wait in the capture pipes. False is certain.
        """
        waits = self.unread_probes is None and self.drained is None
        for fd, event in self.poller.poll(0):
            if fd > 2:
                waits = True
            elif event & select.POLLNVAL:
                os.dup2((self.null, *self.captured)[fd], fd)
        return waits

    def detach(self) -> None:
        """Close the protocol in a forked child: what it writes must never reach the client."""
        # The read ends too: a child that outlives the client must find the pipes broken.
        for fd in (self.reader, self.writer, *(self.unread_probes or ())):
            os.dup2(self.null, fd, inheritable=False)


def private_fd_base() -> int:
    """Return the lowest fd number that the loop's own fds may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _PRIVATE_FD_BASE if soft > 2 * _PRIVATE_FD_BASE or soft < 0 else soft // 2


@contextmanager
def _random_fd_base() -> Generator[int]:
    """Yield a random fd number, far from those in use, from which on fds may be opened inside.

    It is past RLIMIT_NOFILE's soft limit if possible: an open fd stays usable when the limit drops below
    it, while loops over "all" fds go by the limit and never reach it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = _MAX_FD if hard < 0 else min(_MAX_FD, hard)
    least = max(_MIN_RANDOM_FD, min(soft, top // 2) if soft >= 0 else 0)
    spread = top - _FDS_NEEDED - least
    if spread <= 0:
        yield private_fd_base()
        return
    base = least + int.from_bytes(os.urandom(4)) % spread
    raised = 0 <= soft < base + _FDS_NEEDED
    if raised:
        resource.setrlimit(resource.RLIMIT_NOFILE, (base + _FDS_NEEDED, hard))
    try:
        yield base
    finally:
        if raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def claim_standard_fds(capture: tuple[int, int] | None) -> Stdio:
    """Move the protocol away and put the capture pipes in its place.

    Args:
        capture: inherited write ends whose other ends the client drains, or None to make pipes that
            this process drains.
    """
    with _random_fd_base() as base:

        def move(fd: int) -> int:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, base)

        reader, writer, stderr = move(0), move(1), move(2)
        os.set_blocking(reader, False)
        opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        null = move(opened)
        os.close(opened)
        drained: tuple[int, int] | None = None
        if capture is None:
            (out_read, out), (err_read, err) = os.pipe(), os.pipe()
            drained = (move(out_read), move(err_read))
            for fd in drained:
                os.set_blocking(fd, False)
            os.close(out_read)
            os.close(err_read)
        else:
            out, err = capture
        kept = (move(out), move(err))
        heard = None if drained else _open_read_ends(kept, move)
    for fd in (writer, *kept):
        try:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            # The user's pipe allowance is spent (or it is no pipe); a small one works too.
            break
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in (out, err):
        if fd > 2:
            os.close(fd)
    watch = select.poll()
    for fd in (0, 1, 2):
        watch.register(fd, 0)
    for fd in heard or ():
        watch.register(fd, select.POLLIN)
    return Stdio(reader, writer, stderr, null, kept, drained, heard, watch)


def _open_read_ends(pipes: tuple[int, int], move: Callable[[int], int]) -> tuple[int, int] | None:
    """Return read ends, opened anew and moved, of pipes by their write ends; None without permission."""
    opened: list[int] = []
    try:
        # The kernel's way to another end of a pipe; without /proc, or as another user, there is none.
        opened.extend(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK) for fd in pipes)
        out, err = (move(fd) for fd in opened)
    except OSError:
        return None
    finally:
        for fd in opened:
            os.close(fd)
    return out, err


@contextmanager
def avoid_low_fds(null: int) -> Generator[None]:
    """Assign a high number to every fd that is opened inside.

    For the loop's selector and wake-up socket, whose numbers cannot be asked for: code that closes
    fds 0 to 255 would stop the loop otherwise.
    """
    taken: list[int] = []
    base = private_fd_base()
    try:
        while not taken or taken[-1] < base:
            taken.append(os.dup(null))
        yield
    finally:
        for fd in taken:
            os.close(fd)
