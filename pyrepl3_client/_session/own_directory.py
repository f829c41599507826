"""The work directory that a session with `WorkerConfig(cwd="own")` has to itself.

It is state like the namespace: checkpoints hold it, and a worker puts it back. This end of it makes the
folder, empties it where a worker starts with nothing, and removes it.
"""

import os
import shutil
import tempfile
import weakref
from typing import Self
from urllib.parse import quote

from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import StoreError

_NAMES_END = "-work"
"""Behind a store's path: the folder that holds the directories of its sessions."""


class OwnDirectory:
    """A folder on this machine that belongs to one session alone.

    One beside a store stays with what is on record; any other is temporary.
    """

    def __init__(self, path: str, *, temporary: bool) -> None:
        """Own `path`; a temporary one is removed with the session, or at the end of this program."""
        self.path = path
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
            path = os.path.join(os.path.abspath(store_path) + _NAMES_END, _file_name(session_id))
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
        """Make it again if the code has removed it, and return its path."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        return self.path

    def remove(self) -> None:
        """Remove it, if it is temporary. Idempotent."""
        if self._remove is not None:
            self._remove()


def _file_name(session_id: str) -> str:
    # Neither "." nor ".." nor a path; two sessions have two names.
    return "s-" + quote(session_id, safe="")


def _remove_in(pid: int, path: str) -> None:
    # A forked child inherits the finalizer, and not the directory.
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)
