"""Makes a new store's file, which is whole, and its user's alone, from the moment at which it has a name."""

import errno
import os
import secrets
from contextlib import suppress
from typing import Final

from pyrepl3_client.durable.sqlite.tables.database import IN_MEMORY, Database, Synchronous, check_place
from pyrepl3_client.durable.sqlite.tables.schema import prepare
from pyrepl3_client.errors import StoreError

_MODE: Final = 0o600
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def open_database(path: str, synchronous: Synchronous = "NORMAL", busy_timeout: float = 10.0) -> Database:
    """Open a store at its newest version, and make its file where there is none.

    Args:
        path: of the file, or ":memory:".
        synchronous: as for `Database`.
        busy_timeout: as for `Database`.

    Raises:
        StoreError: it cannot be used; the text says why and what to do. A `StoreBusy` when another process is
            at it just now.
    """
    if path != IN_MEMORY:
        check_place(os.path.abspath(path))
        _create(os.path.realpath(path))
    database = Database(path, synchronous, busy_timeout)
    try:
        database.require_log()
        prepare(database)
        database.guard_log()
    except BaseException:
        database.close()
        raise
    return database


def _create(path: str) -> None:
    """Make the file at once, with all tables. Where several processes do so, the first one's counts."""
    if os.path.lexists(path):
        return
    empty = Database(IN_MEMORY)
    try:
        prepare(empty)
        image = empty.image()
    finally:
        empty.close()
    folder = os.path.dirname(path)
    try:
        try:
            fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE)
        except OSError:
            _create_by_name(path, image)
            return
        try:
            _write(fd, image)
            with suppress(FileExistsError):
                # Only with a descriptor of a folder Python has the link to the file followed.
                os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        finally:
            os.close(fd)
        _sync_folder(folder)
    except OSError as error:
        remedy = "check that its directory exists and may be written"
        if error.errno in _FULL:
            remedy = "the disk is full; free space there and try again"
        raise StoreError(
            f"cannot open the store at {path!r}: its file cannot be created: {error.strerror} ({remedy})"
        ) from error


def _create_by_name(path: str, image: bytes) -> None:
    """The same where a file system has no files without a name."""
    temporary = f"{path}.new-{secrets.token_hex(6)}"
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _MODE)
    try:
        try:
            _write(fd, image)
        finally:
            os.close(fd)
        try:
            with suppress(FileExistsError):
                os.link(temporary, path)
        except OSError:
            # It has no links either.
            if not os.path.lexists(path):
                os.rename(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(os.path.dirname(path))


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
