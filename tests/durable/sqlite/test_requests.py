"""What one request does, where the comparison with the SDK's server does not reach."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from resonate.error import DecodingError, ServerError
from resonate_base import ConnectorError, Network, Source

from pyrepl3_client.durable.sqlite import SqliteConnection, StoreBusy
from pyrepl3_client.durable.sqlite.tables.creation import open_database
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import prepare
from pyrepl3_client.errors import StoreError
from tests.helpers.sqlite_store import (
    START,
    Clock,
    action,
    ask,
    create,
    request,
    settle,
    suspend,
    task_create,
)

pytestmark = pytest.mark.anyio
TARGET = "sqlite://any@default"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[SqliteConnection]:
    async with await SqliteConnection.open(":memory:", clock=clock, max_request_bytes=10_000) as connection:
        yield connection


def test_it_is_both_halves_of_resonates_seam() -> None:
    assert issubclass(SqliteConnection, Network)
    assert issubclass(SqliteConnection, Source)


async def test_parameters_and_values_come_back_as_they_went_in(store: SqliteConnection) -> None:
    param: Any = {"headers": {"é": "\x00"}, "data": "e30=", "more": [1.5, None, 12345678901234567890]}
    await ask(store, "promise.create", {**create("a"), "param": param})
    await ask(store, "promise.settle", settle("a", value=[{"deep": ["\U0001f600"]}]))
    status, data = await ask(store, "promise.get", {"id": "a"})
    assert status == 200
    assert data["promise"]["param"] == param
    assert data["promise"]["value"] == [{"deep": ["\U0001f600"]}]


async def test_a_flat_request_is_understood(store: SqliteConnection) -> None:
    text = msgspec.json.encode({"kind": "promise.create", "corrId": 7, **create("a")}).decode()
    answer = msgspec.json.decode(await store.send(text))
    assert answer["head"]["corrId"] == 7
    assert answer["data"]["promise"]["id"] == "a"


async def test_what_is_no_json_is_a_decoding_error(store: SqliteConnection) -> None:
    for text in ("", "{", '{"kind": "\ud800"}'):
        with pytest.raises(DecodingError):
            await store.send(text)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("promise.create", {"id": 1}),
        ("promise.settle", {"id": "a", "state": "pending"}),
        ("promise.create", {"id": "a", "tags": {"n": 1}}),
        ("task.create", {"pid": "p", "ttl": "long", "action": action("promise.create", create("a"))}),
        ("task.acquire", []),
    ],
)
async def test_a_malformed_request_is_refused_and_changes_nothing(
    store: SqliteConnection, kind: str, data: Any
) -> None:
    await ask(store, "promise.create", create("b"))
    with pytest.raises(ServerError, match="malformed") as refused:
        await store.send(request(kind, data))
    assert refused.value.code == 400
    assert (await ask(store, "promise.get", {"id": "a"}))[0] == 404


async def test_a_refused_request_is_undone_as_a_whole(store: SqliteConnection, clock: Clock) -> None:
    """Its first half, here the heartbeat of a task that exists, must not stay."""
    await ask(store, "task.create", task_create(create("a"), ttl=1_000))
    clock.advance(500)
    refs = [{"id": "a", "version": 0}, {"id": ""}]
    with pytest.raises(ServerError):
        await store.send(request("task.heartbeat", {"pid": "p1", "tasks": refs}))
    clock.advance(500)
    store.tick()
    status, _ = await ask(store, "task.acquire", {"id": "a", "version": 1, "pid": "p2"})
    assert status == 200


async def test_too_large_a_value_is_refused_early_and_in_words(store: SqliteConnection) -> None:
    await ask(store, "promise.create", create("a"))
    status, data = await ask(store, "promise.settle", settle("a", value={"data": "x" * 10_000}))
    assert status == 413
    assert "over the limit of 10,000" in data["error"]
    assert "max_request_bytes" in data["error"]
    _, data = await ask(store, "promise.get", {"id": "a"})
    assert data["promise"]["state"] == "pending"


async def test_a_returning_owner_is_fenced_off(store: SqliteConnection, clock: Clock) -> None:
    """Paused for longer than its lease, it finds that its task is another's; nothing it says counts."""
    await ask(store, "task.create", task_create(create("a", target=TARGET), ttl=1_000))
    clock.advance(1_000)
    store.tick()
    assert (await ask(store, "task.acquire", {"id": "a", "version": 1, "pid": "p2"}))[0] == 200
    stale: list[tuple[str, Any]] = [
        ("task.suspend", suspend("a", [], 0)),
        ("task.release", {"id": "a", "version": 0}),
        ("task.fulfill", {"id": "a", "version": 0, "action": action("promise.settle", settle("a"))}),
        ("task.fence", {"id": "a", "version": 0, "action": action("promise.create", create("a:1"))}),
    ]
    for kind, data in stale:
        assert (await ask(store, kind, data))[0] == 409, kind
    assert (await ask(store, "promise.get", {"id": "a"}))[1]["promise"]["state"] == "pending"
    assert (await ask(store, "promise.get", {"id": "a:1"}))[0] == 404
    fulfill = {"id": "a", "version": 1, "action": action("promise.settle", settle("a"))}
    assert (await ask(store, "task.fulfill", fulfill))[0] == 200


async def test_reclaiming_takes_leases_back_at_once(store: SqliteConnection, clock: Clock) -> None:
    received: list[str] = []
    store.recv(received.append)
    for task_id in ("s.1", "s.2", "t.1"):
        await ask(store, "task.create", task_create(create(task_id, target=TARGET), pid="dead"))
    deferred = create("s.3", target=TARGET, delay=str(START + 20_000))
    await ask(store, "promise.create", deferred)
    await store.reclaim("s.")
    await asyncio.sleep(0)
    offered = [msgspec.json.decode(body)["data"]["task"] for body in received]
    assert sorted(offered, key=lambda task: task["id"]) == [
        {"id": "s.1", "version": 1},
        {"id": "s.2", "version": 1},
    ]
    assert (await ask(store, "task.acquire", {"id": "t.1", "version": 0, "pid": "p2"}))[0] == 409


class RecordingSleeper:
    """Counts the waits, and at the last of them lets go of the lock that is waited for."""

    def __init__(self, path: Path, waits: int) -> None:
        self.waits: list[float] = []
        self.last = waits
        with closing(open_database(str(path))):
            self.other = sqlite3.connect(path, isolation_level=None)

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == self.last:
            self.other.execute("ROLLBACK")


async def test_a_busy_file_is_tried_again(tmp_path: Path) -> None:
    sleeper = RecordingSleeper(tmp_path / "state.db", 6)
    async with await SqliteConnection.open(str(tmp_path / "state.db"), sleeper=sleeper) as store:
        sleeper.other.execute("BEGIN IMMEDIATE")
        assert (await ask(store, "promise.create", create("a")))[0] == 201
    sleeper.other.close()
    assert sleeper.waits == [0.001, 0.001, 0.002, 0.004, 0.008, 0.016]


async def test_a_file_that_stays_busy_fails_the_request_and_not_the_promise(tmp_path: Path) -> None:
    sleeper = RecordingSleeper(tmp_path / "state.db", 1_000_000)
    path = str(tmp_path / "state.db")
    async with await SqliteConnection.open(path, busy_timeout=0.3, sleeper=sleeper) as store:
        await ask(store, "promise.create", create("a"))
        sleeper.other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConnectorError, match="another process holds its lock") as failed:
            await ask(store, "promise.settle", settle("a"))
        assert isinstance(failed.value.error, StoreBusy)
        assert 0.3 <= sum(sleeper.waits) < 0.4
        sleeper.other.execute("ROLLBACK")
        assert (await ask(store, "promise.get", {"id": "a"}))[1]["promise"]["state"] == "pending"
    sleeper.other.close()


async def test_a_full_disk_fails_the_request_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "state.db"))
    prepare(database)
    async with SqliteConnection(database) as store:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(ConnectorError, match="the disk is full; free space"):
            await ask(store, "promise.create", {**create("a"), "param": "x" * 100_000})
        database.execute("PRAGMA max_page_count = 1000000")
        assert (await ask(store, "promise.get", {"id": "a"}))[0] == 404
        assert (await ask(store, "promise.create", create("a")))[0] == 201


async def test_a_closed_store_says_so() -> None:
    store = await SqliteConnection.open(":memory:")
    store.close()
    with pytest.raises(ConnectorError, match="is closed; open it again"):
        await ask(store, "promise.get", {"id": "a"})
    with pytest.raises(StoreError, match="is closed"):
        store.records.leases.acquire("s", "me", 1.0)
