"""Hands descriptors to the worker's parent: of its directories, and of a socket in its own network.

The parent works on files for it, and answers what connects to that socket. It happens before any code of the
session can run, so what the parent gets is what the boundary shows.
"""

import _socket  # at once: behind a root of its own, a process may not find modules of its Python
import os
import struct

from pyrepl3_schemas.constants import LISTENER, PROXY_ADDRESS

_BACKLOG = 128
"""Connections that wait while the parent's proxy serves as many as it does at a time."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def hand_over(channel: int, work: str, own: str | None) -> None:
    """Send descriptors of the root, of the work directory, and of the session's own directory.

    Args:
        channel: a socket to the parent; it stays open.
        work: the work directory, whose path is sent too.
        own: the directory that is the session's alone, if there is one.

    Raises:
        OSError: a directory cannot be opened.
    """
    fds: list[int] = []
    try:
        for path in ("/", work, *(() if own is None else (own,))):
            fds.append(os.open(path, _DIRECTORY))  # noqa: PERF401 - each is closed, whatever fails then
        _send(channel, os.fsencode(work), fds)
    finally:
        for fd in fds:
            os.close(fd)


def hand_over_listener(channel: int) -> None:
    """Send a socket that listens at `PROXY_ADDRESS` in this process's network, which is its own.

    Args:
        channel: a socket to the parent; it stays open.

    Raises:
        OSError: there is no such socket to be had.
    """
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(PROXY_ADDRESS)
        listener.listen(_BACKLOG)
        _send(channel, LISTENER, [listener.fileno()])
    finally:
        listener.close()


def _send(channel: int, message: bytes, fds: list[int]) -> None:
    connection = _socket.socket(fileno=channel)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
        connection.sendmsg([message], [rights], _socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        return  # the parent is gone, and this process with it soon
    finally:
        connection.detach()
