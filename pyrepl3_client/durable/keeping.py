"""What is done to an SQLite store as a whole: look into it, delete sessions, prune, compact, back up."""

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing
from typing import Final

from pyrepl3_client.durable.lease.owner import current_owner, is_dead, mark_ended
from pyrepl3_client.durable.location import SqliteLocation
from pyrepl3_client.durable.resonate.ids import session_prefix
from pyrepl3_client.durable.sqlite import (
    CheckpointRow,
    ExecutionRow,
    Pruned,
    SessionRecords,
    SqliteConnection,
)
from pyrepl3_client.durable.sqlite.tables.creation import open_database
from pyrepl3_client.durable.sqlite.tables.errors import store_error
from pyrepl3_client.durable.sqlite.tables.overview import SessionRow
from pyrepl3_client.errors import SessionBusy, StoreError, describe_owner

_DELETING_TTL: Final = 60.0
_BACKUP_PAGES: Final = 1000
"""Pages of a backup that are copied at a time; another process's write between two of them is copied too."""


async def connect(location: SqliteLocation, *, create: bool) -> SqliteConnection:
    """Open a store without owning any session of it.

    Raises:
        StoreError: it cannot be opened, or there is none and `create` is false.
    """
    if not create:
        _require_there(location.path)
    return await SqliteConnection.open(
        location.path,
        synchronous="FULL" if location.synchronous == "FULL" else "NORMAL",
        busy_timeout=location.busy_timeout,
    )


def _require_there(path: str) -> None:
    path = os.path.abspath(path)
    if not os.path.lexists(path):
        raise StoreError(f"there is no store at {path!r} (check the path; create=True makes one)")


def is_owned(row: SessionRow, now: int) -> bool:
    """Return whether a session has an owner that lives, as far as that can be told."""
    return bool(row.owner) and now < row.expires_at and not is_dead(row.owner, one_machine=True)


async def sizes(connection: SqliteConnection, session_id: str) -> int:
    """Return the bytes that a session has on record."""
    return await connection.retry_while_busy(
        lambda: (
            connection.records.usage.executions(session_id) + connection.records.usage.checkpoints(session_id)
        )
    )


async def sessions(connection: SqliteConnection) -> list[SessionRow]:
    """Return all sessions."""
    return await connection.retry_while_busy(connection.records.overview.sessions)


async def executions(connection: SqliteConnection, session_id: str) -> list[ExecutionRow]:
    """Return a session's executions, in order."""
    return await connection.retry_while_busy(lambda: connection.records.executions.after(session_id))


async def checkpoints(connection: SqliteConnection, session_id: str) -> list[CheckpointRow]:
    """Return a session's checkpoints, in order."""
    return await connection.retry_while_busy(lambda: connection.records.checkpoints.of(session_id))


async def delete(connection: SqliteConnection, session_id: str) -> None:
    """Delete a session, whose owner this becomes for that.

    Raises:
        SessionBusy: it has an owner that lives.
        StoreError: the store cannot be written; nothing is deleted then.
    """
    owner = current_owner()

    def work(records: SessionRecords) -> None:
        lease = records.leases.acquire(session_id, owner, _DELETING_TTL, _is_dead)
        records.overview.delete(lease, session_prefix(session_id))

    try:
        await connection.record(work)
    except SessionBusy as error:
        raise SessionBusy(
            session_id, describe_owner(error.owner), error.expires_at, error.remaining
        ) from None
    finally:
        mark_ended(owner)


def delete_folder(path: str) -> None:
    """Delete a folder with all that is in it, if it is there.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"the session's record is deleted, its work directory is not: {error}") from error


async def prune(connection: SqliteConnection, older_than: float) -> Pruned:
    """Delete promises that settled so many seconds ago, and blobs that nothing names."""
    return await connection.prune(older_than)


def compact(path: str, busy_timeout: float) -> int:
    """Write the file anew without the space that nothing uses; return by how many bytes it is smaller.

    For a thread of its own: it writes all that is in it, and others wait to write meanwhile.

    Raises:
        StoreError: it cannot be written. A `StoreBusy` when others wrote for longer than the busy timeout.
    """
    before = os.stat(path).st_size
    with closing(open_database(path, busy_timeout=busy_timeout)) as database, _as_store_errors(path):
        database.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
        database.execute("VACUUM")
        database.fold_log()
    return max(before - os.stat(path).st_size, 0)


def backup(path: str, target: str) -> None:
    """Copy a store, whole at one moment, while it may be in use. For a thread of its own.

    Raises:
        StoreError: there is something at the target, or it cannot be written.
    """
    target = os.path.abspath(target)
    if os.path.lexists(target):
        raise StoreError(f"cannot back up to {target!r}: it is there already (choose another path)")
    temporary = f"{target}.part-{secrets.token_hex(6)}"
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with (
            _as_store_errors(target),
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            source.backup(copy, pages=_BACKUP_PAGES)
            # Who has a session there has none here, and gets no messages of this one.
            copy.execute("UPDATE sessions SET owner = '', expires_at = 0")
            copy.execute("DELETE FROM mail")
            copy.commit()
            copy.execute("PRAGMA journal_mode = DELETE")
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(temporary, target)
    except FileExistsError:
        raise StoreError(f"cannot back up to {target!r}: it is there already (choose another path)") from None
    except OSError as error:
        raise StoreError(f"cannot back up to {target!r}: {error.strerror} (choose another path)") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@contextlib.contextmanager
def _as_store_errors(path: str) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error, path, "write to") from error


def _is_dead(owner: str) -> bool:
    return is_dead(owner, one_machine=True)
