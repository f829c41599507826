"""What a session can be asked to do with its files. Each function blocks, and may be stopped in between."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EFBIG, ENOTEMPTY
from typing import Final, Literal

from pyrepl3_client._files.problems import local_error
from pyrepl3_client._files.syscalls import is_made_by_kernel
from pyrepl3_client._files.transfer import NewFile, ShrunkError, Stop, copy, read_all, write_from
from pyrepl3_client._files.view import FileView
from pyrepl3_client.errors import SessionFileError

type FileKind = Literal["file", "folder", "link", "other"]

_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 128
"""Folders in each other that are removed: each takes a descriptor meanwhile."""
_PASSES: Final = 3
"""How often a folder is emptied that is filled meanwhile."""
_NEW_FILE: Final = 0o666
_PERMISSIONS: Final = 0o777


@dataclass(frozen=True, slots=True)
class FileInfo:
    """An entry of a folder."""

    name: str
    """Its name in the folder. Bytes that are no UTF-8 are escaped as `os.fsdecode` does it."""
    kind: FileKind
    """"file", "folder", "link" (symbolic), or "other": a FIFO, a socket, a device."""
    size: int
    """Bytes of a file; of anything else what the file system says."""
    modified: float
    """When its content was changed last, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a change has done."""

    path: str
    own: bool
    """Whether it is in a directory that is state of the session."""
    size: int = 0
    """Bytes that were written."""


def read(view: FileView, path: str, max_bytes: int, stop: Stop) -> bytes:
    """Return a file's content. See `SessionFiles.read`."""
    with (
        _opened(view, path, max_bytes, "raise that, or download() it") as (source, size),
        view.explained(path),
    ):
        return read_all(source, size, stop)


def write(view: FileView, path: str, data: memoryview, stop: Stop) -> Written:
    """Write a file. See `SessionFiles.write`."""
    with _placed(view, path, _NEW_FILE) as place, view.as_code(path):
        write_from(data, place.file.fd, stop)
        stop.check()
        place.file.publish(place.mode)
        return Written(path, place.own, len(data))


def list_folder(view: FileView, path: str, stop: Stop) -> list[FileInfo]:
    """Return what is in a folder. See `SessionFiles.list`."""
    with view.as_code(path):
        folder = view.open_folder(path)
        try:
            found: list[FileInfo] = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    stop.check()
                    if len(found) == _MAX_ENTRIES:
                        raise SessionFileError(
                            path, f"holds more than {_MAX_ENTRIES:,} entries: have the code list it, in parts"
                        )
                    with suppress(FileNotFoundError):  # removed meanwhile
                        found.append(_info(entry.name, entry.stat(follow_symlinks=False)))
        finally:
            os.close(folder)
    return sorted(found, key=lambda info: info.name)


def remove(view: FileView, path: str, *, recursive: bool, stop: Stop) -> Written:
    """Remove a file, a link or a folder. See `SessionFiles.remove`."""
    with view.as_code(path):
        folder, name = view.open_parent(path, make=False)
        try:
            written = Written(path, view.is_own(path, folder))
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
            elif recursive:
                _remove_tree(path, folder, name, stop, _MAX_DEPTH)
            else:
                os.rmdir(name, dir_fd=folder)
        finally:
            os.close(folder)
    return written


def download(view: FileView, path: str, to: str, max_bytes: int | None, stop: Stop) -> None:
    """Copy a file of the session to this program's side. See `SessionFiles.download`."""
    with _opened(view, path, max_bytes, "raise that, if it is to be here") as (source, size):
        if os.path.isdir(to):
            to = os.path.join(to, os.path.basename(path.rstrip("/")))
        with _local(to):
            folder = os.open(os.path.dirname(to) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                name = os.fsencode(os.path.basename(to))
                mode = _mode_of_present(to, folder, name, "take another name")
                file = NewFile(folder, name, _NEW_FILE)
                try:
                    _copy(view, path, source, file.fd, size, stop)
                    stop.check()
                    file.publish(mode)
                finally:
                    file.close()
            finally:
                os.close(folder)


def upload(view: FileView, source_path: str, path: str, stop: Stop) -> Written:
    """Copy a file of this program's side to the session. See `SessionFiles.upload`."""
    with _local(source_path):
        source = os.open(source_path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            raise SessionFileError(
                source_path, "is no regular file: upload takes one file, write() takes bytes"
            )
        if is_made_by_kernel(source):
            # Its size says nothing: 0, or a page.
            raise SessionFileError(
                source_path, "is made by the kernel when it is read: read it, and write() its content"
            )
        with view.as_code(path):
            if path.endswith("/") or view.is_folder(path):
                path = os.path.join(path, os.path.basename(source_path))
        with _placed(view, path, found.st_mode) as place:
            with view.explained(path):
                try:
                    copy(source, place.file.fd, found.st_size, stop)
                except ShrunkError:
                    raise SessionFileError(
                        source_path, "became shorter while it was read: try again when it is whole"
                    ) from None
            stop.check()
            with view.as_code(path):
                place.file.publish(place.mode)
            return Written(path, place.own, found.st_size)
    finally:
        os.close(source)


@dataclass(frozen=True, slots=True)
class _Place:
    """A new file in the session that has no name yet."""

    file: NewFile
    mode: int | None
    """The mode of the file that it takes the place of."""
    own: bool


@contextmanager
def _placed(view: FileView, path: str, permissions: int) -> Generator[_Place]:
    """Begin a new file of the session; unless it is published, nothing is left of it."""
    with view.as_code(path):
        if path.endswith("/"):
            raise SessionFileError(path, "names a folder: add the file's name")
        folder, name = view.open_parent(path, make=True)
    try:
        with view.as_code(path):
            mode = _mode_of_present(path, folder, name, "remove() it, or take another name")
            file = NewFile(folder, name, permissions)
        try:
            yield _Place(file, mode, view.is_own(path, folder))
        finally:
            file.close()
    finally:
        os.close(folder)


@contextmanager
def _opened(view: FileView, path: str, max_bytes: int | None, remedy: str) -> Generator[tuple[int, int]]:
    """Open a file of the session for reading; give it and the size of it that counts from now on."""
    with view.as_code(path):
        source = view.open_file(path)
    try:
        size = os.fstat(source).st_size
        if max_bytes is not None and size > max_bytes:
            raise SessionFileError(
                path,
                f"has {size:,} bytes, more than max_bytes={max_bytes:,}: {remedy}",
                EFBIG,
            )
        yield source, size
    finally:
        os.close(source)


@contextmanager
def _local(path: str) -> Generator[None]:
    """Raise the system's errors inside as errors about a path of this program's."""
    try:
        yield
    except SessionFileError:
        raise
    except OSError as error:
        raise local_error(error, path) from None


def _copy(view: FileView, path: str, source: int, target: int, size: int, stop: Stop) -> None:
    try:
        copy(source, target, size, stop)
    except ShrunkError:
        with view.explained(path):
            raise


def _mode_of_present(path: str, folder: int, name: bytes, remedy: str) -> int | None:
    """Return the mode of the file that stands where another is to be; None for none, or a link.

    Raises:
        SessionFileError: something else stands there.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise SessionFileError(path, "is a folder: add the name of a file in it")
    if stat.S_ISLNK(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise SessionFileError(
            path,
            f"is a FIFO, a socket or a device, which a file cannot replace: {remedy}",
        )
    return found.st_mode & _PERMISSIONS


def _remove_tree(path: str, folder: int, name: bytes, stop: Stop, depth: int) -> None:
    """Remove a folder with all that is in it, without following a link."""
    if not depth:
        raise SessionFileError(
            path, f"holds folders {_MAX_DEPTH} deep in each other: have the code remove it"
        )
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        for left in reversed(range(_PASSES)):
            with os.scandir(inner) as entries:
                for entry in entries:
                    stop.check()
                    with suppress(FileNotFoundError):  # removed meanwhile
                        _remove_entry(path, inner, entry, stop, depth)
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError as error:
                if error.errno != ENOTEMPTY:
                    raise
                if not left:
                    raise SessionFileError(
                        path,
                        "is being filled while it is removed: try again when the code has ended",
                        ENOTEMPTY,
                    ) from None
            else:
                return
    finally:
        os.close(inner)


def _remove_entry(path: str, folder: int, entry: os.DirEntry[str], stop: Stop, depth: int) -> None:
    name = os.fsencode(entry.name)
    if entry.is_dir(follow_symlinks=False):
        _remove_tree(path, folder, name, stop, depth - 1)
    else:
        os.unlink(name, dir_fd=folder)


def _info(name: str, found: os.stat_result) -> FileInfo:
    mode = found.st_mode
    kind: FileKind
    if stat.S_ISREG(mode):
        kind = "file"
    elif stat.S_ISDIR(mode):
        kind = "folder"
    else:
        kind = "link" if stat.S_ISLNK(mode) else "other"
    return FileInfo(name, kind, found.st_size, found.st_mtime)
