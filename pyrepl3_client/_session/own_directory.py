"""The work directory that a session with `WorkerConfig(cwd="own")` has to itself.

It is state like the namespace: checkpoints hold it, and a worker puts it back. This end of it makes the
folder, empties it where a worker starts with nothing, and removes it.
"""

import os
import shutil
import tempfile
import weakref
from errno import ELOOP, ENOTDIR
from typing import Final, Self
from urllib.parse import quote

from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import StoreError

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMES_END: Final = "-work"
"""Behind a store's path: the folder that holds the directories of its sessions."""


class OwnDirectory:
    """A folder on this machine that belongs to one session alone.

    One beside a store stays with what is on record; any other is temporary.
    """

    def __init__(self, path: str, *, temporary: bool) -> None:
        """Own `path`; a temporary one is removed with the session, or at the end of this program."""
        self.path = path
        self._fd = -1
        self._remove = weakref.finalize(self, _remove_in, os.getpid(), path) if temporary else None

    @classmethod
    def make(cls, config: WorkerConfig, session_id: str, store_path: str | None) -> Self | None:
        """Make a session's directory, or return None if it wants none of this machine's.

        Args:
            config: a confined worker has a directory inside, which ends with it.
            session_id: the session; the folder beside the store is named after it.
            store_path: the file of the session's store; None if that is not a file.

        Raises:
            StoreError: the folder cannot be made.
        """
        if not config.has_own_directory or config.confinement == "strict":
            return None
        try:
            if store_path is None:
                return cls(tempfile.mkdtemp(prefix="pyrepl3-work-"), temporary=True)
            path = directory_beside(store_path, session_id)
            os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"no work directory can be made for session {session_id!r}: {error}; make room for it, or "
                "give the worker a cwd"
            ) from error
        return cls(path, temporary=False)

    def clear(self) -> None:
        """Remove all that is in it: the session goes on with nothing."""
        with os.scandir(self.prepare()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def prepare(self) -> str:
        """Make it again if the code has removed it, or put something else there, and return its path."""
        try:
            fd = os.open(self.path, _DIRECTORY)
        except OSError as error:
            if error.errno in (ENOTDIR, ELOOP):
                os.unlink(self.path)  # a link of the code's: what it leads to is not the session's
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            fd = os.open(self.path, _DIRECTORY)
        if self._fd >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
            os.close(fd)
        else:
            self._close()
            self._fd = fd
        return self.path

    def open(self) -> int:
        """Return a new descriptor (O_PATH) of the directory, as it was when the worker began.

        Raises:
            OSError: there is no room for another descriptor, or the session is closed.
        """
        return os.dup(self._fd)

    def remove(self) -> None:
        """Remove it, if it is temporary. Idempotent."""
        self._close()
        if self._remove is not None:
            self._remove()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def directory_beside(store_path: str, session_id: str) -> str:
    """Return the path of the directory of a session's own that is beside its store."""
    return os.path.join(os.path.abspath(store_path) + _NAMES_END, _file_name(session_id))


def _file_name(session_id: str) -> str:
    # Neither "." nor ".." nor a path; two sessions have two names.
    return "s-" + quote(session_id, safe="")


def _remove_in(pid: int, path: str) -> None:
    # A forked child inherits the finalizer, and not the directory.
    if os.getpid() != pid:
        return
    if os.path.islink(path):
        os.unlink(path)  # of the code's
    shutil.rmtree(path, ignore_errors=True)
