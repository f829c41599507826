"""A store as a whole: which sessions there are, what they hold; deleting, pruning, compacting, backing up."""

import asyncio
import os
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from pyrepl3_client._session.own_directory import directory_beside
from pyrepl3_client.config import checked_bool, checked_id, checked_path
from pyrepl3_client.errors import PyRepl3Error, StoreError, describe_owner
from pyrepl3_schemas.executor_config import MAX_SECONDS, as_float, shown

if TYPE_CHECKING:
    from pyrepl3_client.durable.location import SqliteLocation
    from pyrepl3_client.durable.sqlite import SqliteConnection


class StoredSession(msgspec.Struct, frozen=True):
    """A session on record."""

    session_id: str
    state: Literal["open", "closed"]
    """Whether it has an owner that lives, as far as that can be told."""
    owner: str
    """Whose it is, in words; empty if it has no owner."""
    executions: int
    bytes: int
    """That it has on record, as `max_store_bytes` counts them."""
    last_used: datetime
    """When it was opened last, or an execution of it began or ended after that."""
    confinement: str | None
    """The level at which its code ran last; None in records of earlier versions."""


class StoredExecution(msgspec.Struct, frozen=True):
    """An execution on record."""

    execution_id: str
    number: int
    """Its place in the session's history, from 1 on."""
    code: str
    status: Literal["started", "finished", "rejected"]
    """`started` has no outcome yet; `rejected` was given up."""
    started_at: datetime
    finished_at: datetime | None


class StoredCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint on record."""

    checkpoint_id: str
    after: int
    """The number of the execution after which the namespace was so."""
    created_at: datetime


class PrunedStore(msgspec.Struct, frozen=True):
    """How much `Store.prune` has deleted."""

    promises: int
    blobs: int


class Store:
    """A store that is opened to look into it, or to keep it in order, beside those whose sessions it holds.

    Made by `open_store`; use it as `async with`. It owns no session: what it reads may be in use.
    """

    def __init__(self, location: "SqliteLocation", *, create: bool) -> None:
        """Made by `open_store`."""
        self._location = location
        self._create = create
        self._connection: SqliteConnection | None = None

    def __repr__(self) -> str:
        """Show where it is."""
        return f"<Store {self._location.path!r}{'' if self._connection else ': not open'}>"

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            StoreError: it cannot be opened, or there is none.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - Resonate takes a moment to import

        if self._connection is None:
            self._connection = await keeping.connect(self._location, create=self._create)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- looking into it -----------------------------------------------------------------------------

    async def sessions(self) -> list[StoredSession]:
        """Return all sessions on record, by their ids.

        Raises:
            StoreError: the store cannot be read.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        connection = self._open()
        found: list[StoredSession] = []
        now = int(datetime.now(UTC).timestamp() * 1000)
        for row in await keeping.sessions(connection):
            owned = keeping.is_owned(row, now)
            found.append(
                StoredSession(
                    row.session_id,
                    "open" if owned else "closed",
                    describe_owner(row.owner) if owned else "",
                    row.executions,
                    await keeping.sizes(connection, row.session_id),
                    _time(max(row.acquired_at, row.last_at or 0)),
                    row.confinement,
                )
            )
        return found

    async def history(self, session_id: str) -> list[StoredExecution]:
        """Return the executions of a session, in order.

        Args:
            session_id: the session.

        Raises:
            StoreError: there is no such session, or the store cannot be read.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        await self._require(session_id)
        return [
            StoredExecution(
                row.execution_id,
                row.seq,
                row.code,
                row.status,
                _time(row.started_at),
                None if row.finished_at is None else _time(row.finished_at),
            )
            for row in await keeping.executions(self._open(), session_id)
        ]

    async def checkpoints(self, session_id: str) -> list[StoredCheckpoint]:
        """Return the checkpoints of a session, from the earliest point of its history on.

        Args:
            session_id: the session.

        Raises:
            StoreError: there is no such session, or the store cannot be read.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        await self._require(session_id)
        return [
            StoredCheckpoint(row.checkpoint_id, row.after_seq, _time(row.created_at))
            for row in await keeping.checkpoints(self._open(), session_id)
        ]

    # --- keeping it in order -------------------------------------------------------------------------

    async def delete(self, session_id: str) -> None:
        """Delete a session: its executions, checkpoints, promises, and its work directory beside the store.

        The file keeps its size; the space is used again, or given back by `compact`.

        Args:
            session_id: the session.

        Raises:
            SessionBusy: it has an owner that lives.
            StoreError: there is no such session, or the store cannot be written.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        await self._require(session_id)
        await keeping.delete(self._open(), session_id)
        folder = directory_beside(self._location.path, session_id)
        await asyncio.to_thread(keeping.delete_folder, folder)

    async def prune(self, older_than: float) -> PrunedStore:
        """Delete what nothing needs any more: promises that settled so long ago, and blobs of no checkpoint.

        Executions, their outcomes and checkpoints stay.

        Args:
            older_than: seconds, 0 or more.

        Raises:
            StoreError: the store cannot be written; what was deleted so far stays deleted.
            ValueError, TypeError: `older_than` is no such number.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        seconds = as_float("older_than", older_than)
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"older_than must be a number of seconds, 0 or more, not {shown(older_than)}")
        pruned = await keeping.prune(self._open(), seconds)
        return PrunedStore(pruned.promises, pruned.blobs)

    async def compact(self) -> int:
        """Give the space that nothing uses back to the disk; return by how many bytes the file is smaller.

        It writes the whole file anew; sessions in use wait to record meanwhile.

        Raises:
            StoreError: the store cannot be written, or there is no space. A `StoreBusy` where others write
                for longer than the store's busy timeout.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        self._open()
        return await asyncio.to_thread(keeping.compact, self._location.path, self._location.busy_timeout)

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store to a new file, whole at one moment, while its sessions may be in use.

        Args:
            path: of the copy. Nothing may be there.

        Raises:
            StoreError: something is there, or it cannot be written; nothing is left there then.
            ValueError, TypeError: it is no path.
        """
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        target = checked_path("path", path)
        self._open()
        await asyncio.to_thread(keeping.backup, self._location.path, target)

    # --- what they need ------------------------------------------------------------------------------

    def _open(self) -> "SqliteConnection":
        if self._connection is None:
            raise PyRepl3Error("the store is not open: use it as `async with open_store(…) as store`")
        return self._connection

    async def _require(self, session_id: str) -> None:
        from pyrepl3_client.durable import keeping  # noqa: PLC0415 - as above

        checked_id("session_id", session_id)
        if all(row.session_id != session_id for row in await keeping.sessions(self._open())):
            raise StoreError(f"there is no session {session_id!r} in the store at {self._location.path!r}")


def open_store(url: str | os.PathLike[str], *, create: bool = False) -> Store:
    """Return a store to look into it and to keep it in order: `async with open_store("state.db") as store`.

    Args:
        url: the path of an SQLite file, or `sqlite:///path`, as `store=` of `open_session`. Stores over the
            network are not opened by it.
        create: whether to make a store where there is none.

    Raises:
        StoreError: `url` is no such place. What else is wrong with it is raised by `async with`.
        TypeError: an argument has the wrong type.

    Example:
        async with open_store("state.db") as store:
            for session in await store.sessions():
                print(session.session_id, session.state, session.bytes)
    """
    from pyrepl3_client.durable.location import IN_MEMORY, RemoteLocation, parse_location  # noqa: PLC0415

    checked_bool("create", create)
    location = parse_location(url)
    if isinstance(location, RemoteLocation):
        raise StoreError(
            f"open_store() opens SQLite files, not {location.safe_url}: use the database's own tools there"
        )
    if location.path == IN_MEMORY:
        raise StoreError("open_store() opens SQLite files; what a session has in memory: ends with it")
    return Store(location, create=create)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
