"""What the client needs of a worker: some fds, a bell, and an end. Real and scripted ones offer it."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pyrepl3_client.config import WorkerConfig

PIPE_BYTES: Final = 1024 * 1024
_LOWEST_FD: Final = 3


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code or the number of a signal."""

    exit_code: int | None
    signal: int | None
    peak_rss: int | None = None
    """Most bytes of memory that it ever had, None when nobody knows."""


@dataclass(slots=True)
class WorkerPipes:
    """The parent's ends of a worker's pipes, all non-blocking; -1 once closed."""

    writer: int
    """Frames to the worker."""
    reader: int
    """Frames from it."""
    captured_stdout: int
    """What its code writes to fd 1 past Python."""
    captured_stderr: int
    """What its code writes to fd 2 past Python."""
    stderr: int
    """What the worker itself writes to its stderr."""
    exit_fd: int
    """Becomes readable when the process has ended; a pidfd for a real one."""
    greeting_sent: bytes = b""
    """What has been written of the greeting already."""

    def close_writer(self) -> None:
        """Let the worker see the end of its input. Idempotent."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Close everything. Idempotent."""
        self.close_writer()
        for fd in (self.reader, self.captured_stdout, self.captured_stderr, self.stderr, self.exit_fd):
            if fd >= 0:
                os.close(fd)
        self.reader = self.captured_stdout = self.captured_stderr = self.stderr = self.exit_fd = -1


class Worker(Protocol):
    """A process that speaks the protocol, or something that looks like one."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def pipes(self) -> WorkerPipes:
        """Our ends of its pipes."""
        ...

    def wake(self) -> None:
        """Make it read its mailbox, whatever it is doing."""
        ...

    def kill(self) -> None:
        """End it and its process group at once. Idempotent; allowed until it is reaped."""
        ...

    def reap(self) -> ExitStatus:
        """Say how it ended. Allowed once `ends.exited` is readable."""
        ...


type Launch = Callable[[WorkerConfig], Worker]
"""Starts a worker, on the loop's thread; raises SpawnError."""


def open_pipe() -> tuple[int, int]:
    """Give a pipe (read end, write end) of a megabyte where the user's allowance permits it.

    A program that has closed its standard fds would get 0, 1 or 2 here, which mean something to a
    child; those are moved up.
    """
    ends = os.pipe()
    low = [fd for fd in ends if fd < _LOWEST_FD]
    if low:
        moved = tuple(
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD) if fd < _LOWEST_FD else fd for fd in ends
        )
        for fd in low:
            os.close(fd)
        ends = (moved[0], moved[1])
    set_pipe_size(ends[1], PIPE_BYTES)
    return ends


def set_pipe_size(fd: int, size: int) -> bool:
    """Ask for a pipe's capacity; say whether it was granted."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except PermissionError:
        # Over pipe-max-size or pipe-user-pages-soft: the pipe stays as it is, and works.
        return False
    return True
