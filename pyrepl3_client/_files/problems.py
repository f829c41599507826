"""The system's errors about files of a session, as errors that name the path and say what to do."""

import errno
import os
from typing import Final

from pyrepl3_client.errors import SessionFileError, SessionFileNotFound

_SHOWN_CHARS: Final = 200
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def shown_path(path: str) -> str:
    """Return a path as an error shows it: quoted, and the end of a long one."""
    return repr(path if len(path) <= _SHOWN_CHARS else f"…{path[-_SHOWN_CHARS:]}")


def path_error(error: OSError, path: str, work: str, *, confined: bool, gone: bool) -> SessionFileError:
    """Return the error for a path of the session.

    Args:
        error: the system's.
        path: as the caller gave it.
        work: the work directory's path.
        confined: whether the worker has a root of its own.
        gone: whether the work directory has been removed.
    """
    number = error.errno or 0
    if gone and not path.startswith("/"):
        # File systems differ in what they say of a folder that is no more.
        return SessionFileNotFound(
            path,
            f"is not there: the work directory, {shown_path(work)}, was removed; have the code make it "
            "again, and restart() the session",
            errno.ENOENT,
        )
    if number == errno.ENOENT:
        return SessionFileNotFound(path, _why_missing(path, work, confined=confined), number)
    return SessionFileError(path, _why(number, work, confined=confined), number)


def local_error(error: OSError, path: str) -> SessionFileError:
    """Return the error for a path of this program's."""
    number = error.errno or 0
    why = f"cannot be used on this program's side: {error.strerror or error}"
    if number == errno.ENOENT:
        home = f"{_home(path)}: take Path(…).expanduser()" if path.startswith("~") else ""
        return SessionFileNotFound(path, f"{why}; the path, or a folder of it, is not there{home}", number)
    if number in _FULL:
        return SessionFileError(path, f"{why}; make room there, or name another place", number)
    return SessionFileError(path, f"{why}; name another file, or see to its folder and rights", number)


def _home(path: str) -> str:
    return "; '~' stands for no folder here" if path.startswith("~") else ""


def _why_missing(path: str, work: str, *, confined: bool) -> str:
    if not path.startswith("/"):
        unseen = " (or leads, by a link, to what the session's code may not see)" if confined else ""
        return (
            f"is not there{unseen}: relative paths begin at the work directory, {shown_path(work)}; "
            f"list() shows what it holds{_home(path)}"
        )
    if confined:
        return (
            "is not there for the session's code: confinement 'strict' shows it no such path; name it in "
            "SandboxPolicy(readable=…) or (writable=…), or use one in the work directory, "
            f"{shown_path(work)}"
        )
    return "is not there: the machine on which the code runs has no such path"


def _why(number: int, work: str, *, confined: bool) -> str:
    match number:
        case errno.EXDEV:
            return (
                f"leads out of the work directory, {shown_path(work)}, by a link (or one in it is absolute): "
                "name the place that is meant by its absolute path"
            )
        case errno.ELOOP:
            return "leads by links in a circle, or by one of the kernel's own in /proc: name the file itself"
        case errno.EACCES | errno.EPERM:
            return "may not be used: the session's code has no right to it; change its mode, or the folder's"
        case errno.EROFS if confined:
            return (
                "is read-only for the session: name its folder in SandboxPolicy(writable=…), or write to the "
                f"work directory, {shown_path(work)}"
            )
        case errno.ENOSPC | errno.EDQUOT if confined:
            return (
                "does not fit: the work directory is full; remove() what is not needed, or raise "
                "SandboxPolicy(work_bytes=…)"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return "does not fit: the disk is full; make room there"
        case errno.EFBIG:
            return "does not fit: the file would be larger than its file system, or a limit, allows"
        case errno.ENAMETOOLONG:
            return "is too long: a name has at most 255 bytes, and a path 4,095; take a shorter one"
        case errno.EISDIR:
            return "is a folder: name a file"
        case errno.ENOTDIR:
            return "is no folder, or a part of it is none: name one, or remove the file that stands there"
        case errno.ENOTEMPTY | errno.EEXIST:
            return "is not empty: recursive=True removes it with all that is in it"
        case errno.EBUSY:
            return "is in use by the system, as a mounted file system is: name something in it"
        case errno.EAGAIN:
            return (
                "is held by the code at this moment (a lease, or renames without end): try again, or cancel "
                "what runs"
            )
        case errno.EMFILE | errno.ENFILE:
            return "cannot be opened: this program has no file descriptor left; raise its limit (ulimit -n)"
        case errno.ENOSYS:
            return (
                "cannot be opened safely: files of sessions need openat2 (Linux 5.6, and a container's leave)"
            )
        case _:
            return f"cannot be used: {os.strerror(number) if number else 'for an unknown reason'}"
