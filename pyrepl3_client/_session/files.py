"""The files of a session, for its program: read, written, listed, removed, downloaded and uploaded."""

from os import PathLike
from typing import Any, Final

from pyrepl3_client._files import actions
from pyrepl3_client._files.actions import FileInfo
from pyrepl3_client._session.file_access import FileAccess
from pyrepl3_client.config import MAX_LIMIT, checked_bool, checked_path
from pyrepl3_schemas.executor_config import as_int, shown

DEFAULT_READ_BYTES: Final = 1024**3


class SessionFiles:
    """The files of a session: `session.files`.

    A relative path begins at the session's work directory, and never leads out of it. An absolute one is
    one that the session's code could use: with confinement "strict" one of what the sandbox shows, else
    any of this machine. Links are followed as the code would follow them, and never to anything that it
    may not see. Regular files and folders can be used; a FIFO, a socket or a device is refused by name.

    Everything works while code runs, and during a recovery waits for its end. A file that is written is
    there when it is whole, in the place of an earlier one.

    Example:
        await session.files.upload("sales.csv", "data/sales.csv")
        await session.execute("import pandas as pd; df = pd.read_csv('data/sales.csv')")
    """

    def __init__(self, access: FileAccess) -> None:
        """Act by `access`."""
        self._access = access

    def __repr__(self) -> str:
        """Show whose files they are."""
        return f"<files of session {self._access.session_id!r}>"

    async def read(self, path: str | PathLike[str], *, max_bytes: int = DEFAULT_READ_BYTES) -> bytes:
        """Return the content of a file, as far as it reaches at this moment.

        Args:
            path: of a file of the session.
            max_bytes: bytes that it may have; `download` takes any size.

        Raises:
            SessionFileNotFound: there is none, or none that the session's code may see.
            SessionFileError: it cannot be read: the text says why, and what to do.
            WorkerDied: the session's worker is dead.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        name = checked_path("path", path)
        most = _checked_bytes(max_bytes)
        return await self._access.run("read", name, lambda view, stop: actions.read(view, name, most, stop))

    async def write(self, path: str | PathLike[str], data: bytes | bytearray | memoryview) -> None:
        """Write a file, with the folders that are missing. It takes the place of an earlier one at once.

        A symbolic link that stands there is replaced, not written through.

        Args:
            path: of a file of the session.
            data: its whole content.

        Raises:
            SessionFileError: it cannot be written: the text says why, and what to do. An earlier one is as
                it was.
            WorkerDied: the session's worker is dead, or died before the file was kept.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        name = checked_path("path", path)
        content = _checked_data(data)
        await self._access.change("write", name, lambda view, stop: actions.write(view, name, content, stop))

    async def list(self, path: str | PathLike[str] = ".") -> list[FileInfo]:
        """Return what is in a folder, sorted by name.

        Args:
            path: of a folder of the session; by default its work directory.

        Raises:
            SessionFileNotFound: there is none, or none that the session's code may see.
            SessionFileError: it cannot be listed: it is no folder, or holds more than 100,000 entries.
            WorkerDied: the session's worker is dead.
            SessionClosed: the session is closed.
            ValueError, TypeError: `path` has the wrong value or type.
        """
        name = checked_path("path", path)
        return await self._access.run("list", name, lambda view, stop: actions.list_folder(view, name, stop))

    async def remove(self, path: str | PathLike[str], *, recursive: bool = False) -> None:
        """Remove a file, a link itself, or an empty folder.

        Args:
            path: of what is to be removed.
            recursive: remove a folder with all that is in it. Links in it are not followed.

        Raises:
            SessionFileNotFound: it is not there, or nothing that the session's code may see.
            SessionFileError: it cannot be removed: the text says why, and what to do.
            WorkerDied: the session's worker is dead, or died meanwhile.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        name = checked_path("path", path)
        checked_bool("recursive", recursive)
        await self._access.change(
            "remove", name, lambda view, stop: actions.remove(view, name, recursive=recursive, stop=stop)
        )

    async def download(
        self, path: str | PathLike[str], to: str | PathLike[str], *, max_bytes: int | None = None
    ) -> None:
        """Copy a file of the session to this program's side, of any size, in chunks.

        It is copied as far as it reaches when the copy begins, and is there under its name when it is whole.
        Holes stay holes. Of a file that the code changes meanwhile, parts may be old and parts new.

        Args:
            path: of a file of the session.
            to: where it goes on this machine; into a folder, if that is one, under its own name.
            max_bytes: bytes that it may have; None is any number. Give it where the code is not trusted.

        Raises:
            SessionFileNotFound: there is no such file, or none that the session's code may see.
            SessionFileError: it cannot be read, or not be written to `to`: the text says which and why. What
                was at `to` is as it was.
            WorkerDied: the session's worker is dead.
            SessionClosed: the session is closed, or was closed meanwhile.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        name = checked_path("path", path)
        target = checked_path("to", to)
        most = None if max_bytes is None else _checked_bytes(max_bytes)
        await self._access.run(
            "download", name, lambda view, stop: actions.download(view, name, target, most, stop)
        )

    async def upload(self, from_: str | PathLike[str], path: str | PathLike[str]) -> None:
        """Copy a file of this program's side to the session, of any size, in chunks.

        The folders that are missing are made. The file is there under its name when it is whole, in the place
        of an earlier one. Holes stay holes; a new one has the permissions that it has here.

        Args:
            from_: a file on this machine.
            path: where it goes in the session; into a folder, if that is one, under its own name.

        Raises:
            SessionFileNotFound: `from_` is not there.
            SessionFileError: `from_` cannot be read, or `path` not be written: the text says which and why.
                What was at `path` is as it was.
            WorkerDied: the session's worker is dead, or died before the file was kept.
            SessionClosed: the session is closed, or was closed meanwhile.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        source = checked_path("from_", from_)
        name = checked_path("path", path)
        await self._access.change("upload", name, lambda view, stop: actions.upload(view, source, name, stop))


def _checked_bytes(number: int) -> int:
    if not 0 < as_int("max_bytes", number) <= MAX_LIMIT:
        raise ValueError(f"max_bytes must be above 0 and at most {MAX_LIMIT}, not {shown(number)}")
    return number


def _checked_data(data: Any) -> memoryview:
    hint = "; encode it: text.encode()" if isinstance(data, str) else ""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data must be bytes, not {shown(data)}{hint}")
    view: memoryview[int] = memoryview(data)  # pyright: ignore[reportUnknownArgumentType] - of a memoryview of anything
    return view.cast("B") if view.c_contiguous else memoryview(bytes(view))
