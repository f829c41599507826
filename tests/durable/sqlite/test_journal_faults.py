"""The record of a session on SQLite when the store is in trouble: full, locked, or asked for too much."""

import asyncio
import base64
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from resonate_base import ConnectorError

from pyrepl3_client._journal.protocol import CallRecord
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite import SqliteConnection, StoreBusy
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.durable.sqlite.tables import errors
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import prepare
from pyrepl3_client.errors import StoreError
from tests.helpers.journals import (
    CODE,
    SESSION,
    Submitted,
    connected,
    journal_at,
    must_not_be_lost,
    rows,
    run,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def open_small(path: Path) -> tuple[Database, SqliteJournal]:
    """Open a journal, with its database at hand."""
    database = Database(str(path))
    prepare(database)
    connection = SqliteConnection(database, group=session_group(SESSION))
    journal = await SqliteJournal.open(connection, SESSION, on_lost=must_not_be_lost, ttl=10.0, wait=0.0)
    return database, journal


async def test_an_outcome_that_a_full_disk_did_not_take_is_recorded_when_there_is_room(path: Path) -> None:
    database, journal = await open_small(path)
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    outcome = b"x" * 100_000
    with pytest.raises(StoreError, match="the disk is full"):
        await journal.settle("e", outcome, rejected=False)
    with pytest.raises(StoreError, match="the disk is full"):
        await executing
    with pytest.raises(StoreError, match="the disk is full"):
        await journal.begin_call("e", CallRecord("e:input:1", "input", "d"))
    database.execute("PRAGMA max_page_count = 1000000")
    assert await journal.execute("e", CODE, submitted) == (outcome, True)
    assert submitted.ids == ["e"]
    assert await journal.calls("e") == {}
    await journal.close()
    assert rows(path, "SELECT DISTINCT state FROM promises") == [("resolved",)]


async def test_an_outcome_that_was_kept_back_is_recorded_at_the_end(path: Path) -> None:
    database, journal = await open_small(path)
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full"):
        await journal.settle("e", b"x" * 100_000, rejected=False)
    await asyncio.wait((executing,))
    assert isinstance(executing.exception(), StoreError)
    database.execute("PRAGMA max_page_count = 1000000")
    await journal.close()
    async with journal_at(path) as again:
        assert await again.execute("e", CODE, submitted) == (b"x" * 100_000, True)


async def test_what_is_larger_than_the_store_can_hold_is_refused_early(path: Path) -> None:
    database, journal = await open_small(path)
    assert database.max_value > 900_000_000
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    with pytest.raises(
        StoreError, match=r"the outcome of execution 'e' has [\d,]+ bytes, and an SQLite file"
    ):
        await journal.settle("e", bytes(database.max_value + 1), rejected=False)
    with pytest.raises(StoreError, match="make it smaller"):
        await executing
    assert (await journal.load()).entries[0].status == "started"
    await journal.close()


async def test_a_lock_of_another_process_is_waited_for(path: Path) -> None:
    waits = asyncio.Event()

    async def sleeper(seconds: float) -> None:
        waits.set()
        await asyncio.sleep(seconds)

    connection = await SqliteConnection.open(str(path), group=session_group(SESSION), sleeper=sleeper)
    journal = await SqliteJournal.open(connection, SESSION, on_lost=must_not_be_lost, ttl=10.0, wait=0.0)
    other = Database(str(path))
    other.execute("BEGIN IMMEDIATE")
    running = asyncio.create_task(run(journal, "e"))
    await waits.wait()  # the loop runs on meanwhile
    assert not running.done()
    other.execute("COMMIT")
    assert await running == (b"outcome", False)
    other.close()
    await journal.close()


async def test_a_lock_that_stays_is_an_error_and_no_outcome(path: Path) -> None:
    connection = await connected(path, busy_timeout=0.01)
    journal = await SqliteJournal.open(connection, SESSION, on_lost=must_not_be_lost, ttl=10.0, wait=0.0)
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    with closing(Database(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="another process holds its lock"):
            await journal.settle("e", b"done", rejected=False)
        with pytest.raises(StoreBusy):
            await executing
        with pytest.raises(StoreBusy):
            await journal.execute("f", CODE, submitted)
    assert await journal.execute("e", CODE, submitted) == (b"done", True)
    assert await run(journal, "f", b"too") == (b"too", False)
    assert submitted.ids == ["e"]
    await journal.close()
    # Resonate's own requests met the lock as well: they may be done later, and are never an outcome.
    assert rows(path, "SELECT count(*) FROM promises WHERE state LIKE 'rejected%'") == [(0,)]
    async with journal_at(path):
        pass
    assert rows(path, "SELECT DISTINCT state FROM promises") == [("resolved",)]


async def test_the_promises_hold_where_the_outcome_is_and_no_part_of_it(path: Path) -> None:
    async with journal_at(path) as journal:
        await run(journal, "e", b"secret" * 1000)
    for (value,) in rows(path, "SELECT value FROM promises"):
        data = base64.b64decode(msgspec.json.decode(value)["data"])
        assert msgspec.json.decode(data) == {"ref": "exec:e", "status": "finished", "size": 6000}


async def test_an_execution_that_was_given_up_is_submitted_again_and_keeps_its_calls(path: Path) -> None:
    async with journal_at(path) as journal:
        submitted = Submitted()
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        assert await journal.begin_call("e", CallRecord("e:search:1", "search", "d")) is None
        await journal.finish_call("e", "e:search:1", b"found")
        executing.cancel()
        await asyncio.wait((executing,))
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        known = CallRecord("e:search:1", "search", "d", b"found")
        assert await journal.begin_call("e", CallRecord("e:search:1", "search", "d")) == known
        await journal.settle("e", b"done", rejected=False)
        assert await executing == (b"done", False)
        assert submitted.ids == ["e", "e"]


class Broken(SqliteConnection):
    """A connection that fails, while it is told to, whatever comes after an execution's root."""

    broken = True

    async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
        if self.broken and ":1" in req:
            raise ConnectorError(StoreError("the disk is full"))
        return await super().send(req, headers)


async def test_a_function_that_fails_with_the_store_is_not_waited_for(path: Path) -> None:
    """Whoever asks again is served without it, and it comes to its end when the session is next opened."""
    database = Database(str(path))
    prepare(database)
    connection = Broken(database, group=session_group(SESSION))
    journal = await SqliteJournal.open(connection, SESSION, on_lost=must_not_be_lost, ttl=10.0, wait=0.0)
    submitted = Submitted()
    with pytest.raises(StoreError, match=r"^the disk is full$"):
        await journal.execute("e", CODE, submitted)
    assert submitted.ids == []
    connection.broken = False
    assert await run(journal, "e") == (b"outcome", False)
    await journal.close()
    async with journal_at(path):
        pass
    assert rows(path, "SELECT DISTINCT state FROM promises") == [("resolved",)]


def test_what_the_timer_cannot_do_is_complained_of_once(path: Path) -> None:
    told: list[str] = []

    def on_trouble(
        what: str, error: Exception, *, lost: bool = False, execution_id: str | None = None
    ) -> None:
        told.append(f"{what}: {error}")

    tell_once = errors.TellOnce(on_trouble)
    full = StoreError("the disk is full")
    for error in (full, full, StoreBusy("locked"), full):
        tell_once.tell(error, str(path))
    tell_once.reset()
    tell_once.tell(full, str(path))
    assert told == ["what is due has to wait: the disk is full"] * 2


async def test_a_store_whose_file_was_replaced_takes_no_more(path: Path) -> None:
    async with journal_at(path) as journal:
        await run(journal, "e")
        replace(path)
        with pytest.raises(StoreError, match="is gone, or another one is in its place"):
            await run(journal, "f")


def replace(path: Path) -> None:
    """Put a copy in a file's place, as some programs do that restore or synchronise files."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
