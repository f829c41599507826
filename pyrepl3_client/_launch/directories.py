"""The directories that a worker sees, as descriptors: of where it was started, and what it hands over.

A worker with a root directory of its own (confinement "strict") sends descriptors of that root and of its
work directory, and one with a network of its own a socket that listens in it, if hosts are allowed. It does
so before any code of the session can run, and closes the way by which it did.
"""

import fcntl
import os
import socket
from contextlib import suppress
from typing import Final, NamedTuple

from pyrepl3_client.config import WorkerConfig
from pyrepl3_schemas.constants import LISTENER

_LOWEST_FD: Final = 3
"""Lowest fd that is no standard stream."""
_MAX_PATH_BYTES: Final = 4096
_MIN_FDS: Final = 2
_MAX_FDS: Final = 3


class HandedOver(NamedTuple):
    """What a worker with a root of its own has sent."""

    root: int
    """Its root directory."""
    work: int
    """Its work directory."""
    own: int
    """The directory that is the session's alone; -1 if there is none."""
    work_path: bytes
    """The work directory's path in that root."""


class WorkerDirectories:
    """Descriptors (O_PATH) of a worker's directories, made when it is started; closed with its pipes."""

    def __init__(self, config: WorkerConfig) -> None:
        """Open the directory in which the worker is to start, and the way of what it hands over.

        Raises:
            OSError: there is no such directory, or no room for another fd.
        """
        self.start = os.open(config.start_directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        """The directory in which it starts."""
        self.start_path = (
            os.fsencode(os.path.abspath(config.start_directory)) if config.start_directory else b""
        )
        """That directory's path, as the configuration has it; empty for this program's own."""
        self.workers_end = -1
        """What the worker is to inherit; -1 if it hands nothing over."""
        self._channel: socket.socket | None = None
        self._handed: HandedOver | None = None
        self._listener: socket.socket | None = None
        if config.confinement == "strict":
            try:
                self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with other:
                    # Past the standard fds, which a program may have closed.
                    self.workers_end = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
            except OSError:
                self.close()
                raise

    def start_in(self, path: str) -> None:
        """Take another directory for the one in which it starts: it enters that when it is greeted.

        Raises:
            OSError: there is no such directory, or no room for another fd.
        """
        start = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(self.start)
        self.start = start
        self.start_path = os.fsencode(path)

    def say_written(self) -> None:
        """Tell the worker that the request is written which says what it is to be."""
        assert self._channel is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, as its exit status will tell
            self._channel.send(b".", socket.MSG_NOSIGNAL)

    def close_workers_end(self) -> None:
        """Close what the worker has inherited by now. Idempotent."""
        if self.workers_end >= 0:
            os.close(self.workers_end)
            self.workers_end = -1

    def handed_over(self) -> HandedOver | None:
        """Return what the worker has handed over; None if it has no root of its own. It must be ready."""
        self._receive()
        return self._handed

    def take_listener(self) -> socket.socket | None:
        """Return the socket that listens in the worker's own network, once: it is the caller's to close.

        None if it has handed none over. It must be ready.
        """
        self._receive()
        listener, self._listener = self._listener, None
        return listener

    def _receive(self) -> None:
        if self._channel is None:
            return
        with self._channel as channel:
            self._channel = None
            while (received := _receive(channel)) is not None:
                message, fds = received
                if message == LISTENER and len(fds) == 1 and self._listener is None:
                    self._listener = socket.socket(fileno=fds[0])
                elif message.startswith(b"/") and len(fds) >= _MIN_FDS and self._handed is None:
                    root, work, *own = fds
                    self._handed = HandedOver(root, work, own[0] if own else -1, message)
                else:
                    for fd in fds:
                        os.close(fd)

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self.close_workers_end()
        if self.start >= 0:
            os.close(self.start)
            self.start = -1
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._handed is not None:
            for fd in self._handed[:_MAX_FDS]:
                if fd >= 0:
                    os.close(fd)
            self._handed = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _receive(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return a message with its descriptors; None if there is no more."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    try:
        message, fds, _, _ = socket.recv_fds(channel, _MAX_PATH_BYTES, _MAX_FDS, flags)
    except OSError:
        return None
    return (message, fds) if message else None
