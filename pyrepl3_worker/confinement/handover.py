"""Hands descriptors of the worker's root and work directory to its parent, which works on files for it.

It happens before any code of the session can run, so what the parent gets is what the boundary shows.
"""

import os

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
    # Not `socket`, which takes as long to import as all of this room.
    import _socket
    from array import array

    fds: list[int] = []
    connection = _socket.socket(fileno=channel)
    try:
        for path in ("/", work, *(() if own is None else (own,))):
            fds.append(os.open(path, _DIRECTORY))  # noqa: PERF401 - each is closed, whatever fails then
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds))
        connection.sendmsg([os.fsencode(work)], [rights], _socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        return  # the parent is gone, and this process with it soon
    finally:
        connection.detach()
        for fd in fds:
            os.close(fd)
