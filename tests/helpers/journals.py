"""What the tests of journals share: a session that settles what is submitted, without any worker."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from pyrepl3_client._journal.protocol import Entry, Journal, Spec
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite import SqliteConnection
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.errors import StoreError

SESSION = "analysis-7"
CODE = Spec("x = 1\ny = 2")


def must_not_be_lost(error: StoreError) -> None:
    raise AssertionError(f"the session was lost: {error}")


class Submitted:
    """Takes submissions, and lets a test wait for them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._queue: asyncio.Queue[Entry] = asyncio.Queue()

    def __call__(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._queue.put_nowait(entry)

    async def next(self) -> Entry:
        return await self._queue.get()

    @property
    def ids(self) -> list[str]:
        return [entry.execution_id for entry in self.entries]


async def connected(
    path: Path | str, session: str = SESSION, *, busy_timeout: float = 10.0
) -> SqliteConnection:
    return await SqliteConnection.open(str(path), group=session_group(session), busy_timeout=busy_timeout)


@asynccontextmanager
async def journal_at(
    path: Path | str,
    session: str = SESSION,
    *,
    on_lost: Callable[[StoreError], None] = must_not_be_lost,
    ttl: float = 10.0,
    wait: float = 0.0,
) -> AsyncGenerator[SqliteJournal]:
    journal = await SqliteJournal.open(
        await connected(path, session), session, on_lost=on_lost, ttl=ttl, wait=wait
    )
    try:
        yield journal
    finally:
        await journal.close()


async def run(
    journal: Journal, execution_id: str, outcome: bytes = b"outcome", spec: Spec = CODE
) -> tuple[bytes, bool]:
    """Execute, with a session that settles at once."""
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute(execution_id, spec, submitted))
    asking = asyncio.create_task(submitted.next())
    await asyncio.wait((executing, asking), return_when=asyncio.FIRST_COMPLETED)
    if asking.done():
        await journal.settle(execution_id, outcome, rejected=False)
    asking.cancel()
    return await executing


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as other:
        return other.execute(sql).fetchall()


def blobs(*parts: bytes) -> dict[str, bytes]:
    return {sha256(part).hexdigest(): part for part in parts}
