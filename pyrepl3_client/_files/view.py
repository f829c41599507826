"""What a worker sees of this machine's files, and how this program opens it in the code's place.

Each path is opened by the kernel from a descriptor on that stands for the root, or the work directory, of
the worker: whatever links the code puts there, and however often it swaps them meanwhile, none leads
outside (openat2(2)). What is found is looked at before it is opened, so that no FIFO is waited for and no
device is touched.
"""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EAGAIN, EISDIR
from typing import Final

from pyrepl3_client._files.problems import path_error, shown_path
from pyrepl3_client._files.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    is_made_by_kernel,
    open_at,
    without_capabilities,
)
from pyrepl3_client._files.transfer import ShrunkError
from pyrepl3_client.errors import SessionFileError

_MAX_RACES: Final = 100
"""How often an opening that a rename has disturbed is tried again."""
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders of one worker. The descriptors are the owner's to close."""

    root: int
    """The worker's root directory."""
    work: int
    """Its work directory."""
    own: int
    """The directory that is the session's own, and state of it; -1 if there is none."""
    work_paths: tuple[bytes, ...]
    """The work directory's path as the code sees it, and others that lead to it."""
    confined: bool
    """Whether the root is the worker's own, so that all of it may be seen."""

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.root, self.work, self.own):
            if fd >= 0:
                os.close(fd)


class FileView:
    """Opens paths as the code of one worker would; made for one action, and closed after it."""

    def __init__(self, folders: Folders) -> None:
        """Own `folders`."""
        self._folders = folders
        self._open_folders = [folders]

    def close(self) -> None:
        """Close the folders. Idempotent."""
        if self._open_folders:
            self._open_folders.pop().close()

    @property
    def work_path(self) -> str:
        """The work directory's path, as the code sees it."""
        return os.fsdecode(self._folders.work_paths[0])

    @contextmanager
    def as_code(self, path: str) -> Generator[None]:
        """Do what is inside with the code's rights; raise the system's errors with `path` and a remedy.

        Raises:
            SessionFileError: for an OSError inside.
        """
        with self.explained(path), without_capabilities(active=self._folders.confined):
            yield

    @contextmanager
    def explained(self, path: str) -> Generator[None]:
        """Raise the system's errors inside with `path` and a remedy.

        Raises:
            SessionFileError: for an OSError inside.
        """
        try:
            yield
        except SessionFileError as error:
            if error.path == path:
                raise
            raise SessionFileError(path, error.why, error.errno) from None  # of a folder on its way
        except ShrunkError:
            raise SessionFileError(
                path, "became shorter while it was read: try again when the code does not write to it"
            ) from None
        except OSError as error:
            raise path_error(
                error, path, self.work_path, confined=self._folders.confined, gone=self._is_gone()
            ) from None

    def _is_gone(self) -> bool:
        return os.fstat(self._folders.work).st_nlink == 0

    # --- opening -------------------------------------------------------------------------------------

    def open_file(self, path: str) -> int:
        """Open a regular file for reading, and return its descriptor. To be called inside `as_code`.

        Raises:
            SessionFileError: it is something else.
            OSError: it cannot be opened.
        """
        return self._reopen(path, self._open(path), os.O_RDONLY)

    def open_folder(self, path: str) -> int:
        """Open a folder for reading, and return its descriptor. To be called inside `as_code`.

        Raises:
            SessionFileError: it is something else.
            OSError: it cannot be opened.
        """
        return self._reopen(path, self._open(path), os.O_RDONLY | os.O_DIRECTORY)

    def _reopen(self, path: str, node: int, flags: int) -> int:
        try:
            kind = stat.S_IFMT(os.fstat(node).st_mode)
            if is_made_by_kernel(node):
                raise SessionFileError(
                    path, "is made by the kernel when it is read: have the session's code read it"
                )
            if flags & os.O_DIRECTORY:
                if kind != stat.S_IFDIR:
                    raise SessionFileError(path, "is no folder: list the folder that it is in, or read it")
            elif kind == stat.S_IFDIR:
                raise SessionFileError(path, "is a folder: name a file in it; list() shows them", EISDIR)
            elif kind != stat.S_IFREG:
                raise SessionFileError(path, f"is {_kind_name(kind)}: only regular files can be read")
            # The very file that was looked at. A lease of the code's is an error, and not waited for.
            return os.open(f"/proc/self/fd/{node}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        finally:
            os.close(node)

    def open_parent(self, path: str, *, make: bool) -> tuple[int, bytes]:
        """Return a descriptor of the folder that a path's last part is in, and that part.

        To be called inside `as_code`.

        Args:
            path: where something is, or is to be.
            make: make folders that are missing.

        Raises:
            SessionFileError: the path names no entry of a folder.
            OSError: the folder cannot be opened.
        """
        encoded = os.fsencode(path).rstrip(b"/")
        head, _, name = encoded.rpartition(b"/")
        if name in (b"", b".", b"..") or encoded in self._folders.work_paths:
            raise SessionFileError(path, "is no place for a file: name one in a folder")
        absolute = encoded.startswith(b"/")
        parent = os.fsdecode(head) if head else ("/" if absolute else ".")
        folder = self._make_folders(parent) if make else self._open(parent, os.O_DIRECTORY)
        if is_made_by_kernel(folder):
            os.close(folder)
            raise SessionFileError(path, "is made by the kernel: nothing can be put there")
        return folder, name

    def is_own(self, path: str, folder: int) -> bool:
        """Return whether a folder, opened by `path`, is in the directory that is state of the session."""
        own = self._folders.own
        if own < 0:
            return False
        if self._folders.confined:
            return os.fstat(folder).st_dev == os.fstat(own).st_dev  # a file system of its own
        return self._place(path)[0] == self._folders.work

    def is_folder(self, path: str) -> bool:
        """Return whether a path is a folder. To be called inside `as_code`."""
        with suppress(OSError):
            os.close(self._open(path, os.O_DIRECTORY))
            return True
        return False

    def _make_folders(self, path: str) -> int:
        """Open a folder, and make what is missing of its path."""
        with suppress(FileNotFoundError):
            return self._open(path, os.O_DIRECTORY)
        so_far = "/" if path.startswith("/") else "."
        folder = self._open(so_far, os.O_DIRECTORY)
        for part in path.split("/"):
            if part in ("", "."):
                continue
            so_far = os.path.join(so_far, part)
            try:
                try:
                    above = self._open(so_far, os.O_DIRECTORY)
                except FileNotFoundError:
                    if part == "..":
                        raise
                    # A link that leads nowhere stays, and is told next.
                    with suppress(FileExistsError):
                        os.mkdir(os.fsencode(part), 0o777, dir_fd=folder)
                    above = self._open(so_far, os.O_DIRECTORY)
            finally:
                os.close(folder)
            folder = above
        return folder

    def _open(self, path: str, flags: int = 0) -> int:
        """Open a path without touching what it names (O_PATH)."""
        directory, rest, resolve = self._place(path)
        for _ in range(_MAX_RACES):
            try:
                return open_at(directory, rest, os.O_PATH | flags, resolve)
            except BlockingIOError:
                continue  # something was renamed while `..` was resolved
        raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))

    def _place(self, path: str) -> tuple[int, bytes, int]:
        """Return where a path is opened from, by what path, and in which way."""
        folders = self._folders
        encoded = os.fsencode(path)
        absolute = encoded.startswith(b"/")
        if not absolute and _leaves(encoded):
            raise SessionFileError(
                path, f"leaves the work directory, {shown_path(self.work_path)}: name it by its absolute path"
            )
        if folders.confined:
            # Links lead where they lead the code, which may see all of this root.
            whole = encoded if absolute else folders.work_paths[0] + b"/" + encoded
            return folders.root, whole, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        if not absolute:
            return folders.work, encoded, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
        for work in folders.work_paths:
            if encoded == work or encoded.startswith(work.rstrip(b"/") + b"/"):
                rest = encoded[len(work) :].lstrip(b"/") or b"."
                if not _leaves(rest):
                    return folders.work, rest, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
        return folders.root, encoded, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def _leaves(path: bytes) -> bool:
    """Return whether a relative path goes above where it begins."""
    depth = 0
    for part in path.split(b"/"):
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False


def _kind_name(kind: int) -> str:
    return _KINDS.get(kind, "no regular file")
