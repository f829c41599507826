"""The `Worker` protocol: the pipes, the wake-up signal and the end of a worker process, real or scripted."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pyrepl3_client._launch.directories import WorkerDirectories
from pyrepl3_client.config import WorkerConfig
from pyrepl3_schemas.messages import Adjustments

PIPE_BYTES: Final = 1024 * 1024
"""Capacity that is asked for a worker's pipes."""
_LOWEST_FD: Final = 3
"""Lowest fd that is no standard stream."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code or the number of a signal."""

    exit_code: int | None
    signal: int | None
    peak_rss: int | None = None
    """Largest resident memory that it ever had, in bytes; None when it is not known."""


@dataclass(slots=True)
class WorkerPipes:
    """The client's ends of a worker's pipes. All are non-blocking; a closed one is -1."""

    writer: int
    """Frames to the worker."""
    reader: int
    """Frames from the worker."""
    captured_stdout: int
    """What the user's code writes to fd 1 past Python."""
    captured_stderr: int
    """What the user's code writes to fd 2 past Python."""
    stderr: int
    """What the worker itself writes to its stderr."""
    exit_fd: int
    """Becomes readable when the process has ended; a pidfd for a real process."""
    greeting_sent: bytes = b""
    """The first bytes of the greeting that have been written already."""
    adjustments: Adjustments | None = None
    """What the greeting has the worker change, since it was started before its session was known."""
    directories: WorkerDirectories | None = None
    """The directories that it sees; None for a scripted one."""

    def close_writer(self) -> None:
        """Close the pipe to the worker, which then sees the end of its input. Idempotent."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Close all pipes, and the directories. Idempotent."""
        self.close_writer()
        if self.directories is not None:
            self.directories.close()
        for fd in (self.reader, self.captured_stdout, self.captured_stderr, self.stderr, self.exit_fd):
            if fd >= 0:
                os.close(fd)
        self.reader = self.captured_stdout = self.captured_stderr = self.stderr = self.exit_fd = -1


class NewWorkerPipes:
    """The pipes of a worker that is being started: the ends that it gets, and the client's."""

    def __init__(self) -> None:
        """Open all pipes.

        Raises:
            OSError: there is no room for so many fds.
        """
        self._opened: list[int] = []
        try:
            for _ in range(5):
                self._opened.extend(open_pipe())
        except OSError:
            self.close()
            raise
        read_ends, write_ends = self._opened[::2], self._opened[1::2]
        self.worker_ends = [read_ends[0], *write_ends[1:]]
        """Stdin, stdout, stderr, captured stdout, captured stderr: the order of `FORK_FDS`."""
        self._client_ends = [write_ends[0], *read_ends[1:]]

    def close(self) -> None:
        """Close all ends, when the worker could not be started."""
        for fd in self._opened:
            os.close(fd)

    def connect(self, exit_fd: int, directories: WorkerDirectories) -> WorkerPipes:
        """Close the worker's ends, once the worker has its own, and return the client's with its pidfd."""
        directories.close_workers_end()
        for fd in self.worker_ends:
            os.close(fd)
        for fd in self._client_ends:
            os.set_blocking(fd, False)
        writer, reader, stderr, captured_stdout, captured_stderr = self._client_ends
        return WorkerPipes(
            writer, reader, captured_stdout, captured_stderr, stderr, exit_fd, directories=directories
        )


class Worker(Protocol):
    """A process that speaks the worker's side of the protocol, or a scripted stand-in for one."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def pipes(self) -> WorkerPipes:
        """The client's ends of its pipes."""
        ...

    def wake(self) -> None:
        """Send the wake-up signal: the worker reads its messages, whatever it is doing."""
        ...

    def kill(self) -> None:
        """Kill it and its process group at once. Idempotent; has no effect once it is reaped."""
        ...

    def kill_outermost(self) -> None:
        """Kill the process itself, by SIGKILL, where `kill` only asks it to end what is inside of it.

        The kernel then ends what is inside. Idempotent; has no effect once it is reaped.
        """
        ...

    def reap(self) -> ExitStatus:
        """Collect its exit status. Allowed once `pipes.exit_fd` is readable."""
        ...


type Launch = Callable[[WorkerConfig], Worker]
"""Starts a worker with the given configuration, on the loop's thread; raises SpawnError."""


def open_pipe() -> tuple[int, int]:
    """Return a new pipe (read end, write end), of a megabyte where the kernel's limits permit it.

    A program that has closed its standard fds would get 0, 1 or 2 here, which a child would take for
    its standard streams; those are moved to higher numbers.

    Raises:
        OSError: there is no room for another fd.
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
    """Set a pipe's capacity in bytes; return whether the kernel granted it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except PermissionError:
        # Over pipe-max-size or pipe-user-pages-soft: the pipe stays as it is, and works.
        return False
    return True
