"""Retention: what is old and done goes, what anything still depends on stays."""

from collections.abc import AsyncIterator, Iterable

import pytest

from pyrepl3_client._journal.protocol import blob_digest
from pyrepl3_client.durable.sqlite import Pruned, SqliteConnection
from tests.helpers.sqlite_store import Clock, ask, create, settle, task_create

pytestmark = pytest.mark.anyio
DAY = 86_400_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[SqliteConnection]:
    async with await SqliteConnection.open(":memory:", clock=clock) as connection:
        yield connection


async def settled(store: SqliteConnection, *promise_ids: str) -> None:
    for promise_id in promise_ids:
        await ask(store, "promise.create", create(promise_id, target="sqlite://any@default"))
        await ask(store, "promise.settle", settle(promise_id))


async def left(store: SqliteConnection, promise_ids: Iterable[str]) -> list[str]:
    return [found for found in promise_ids if (await ask(store, "promise.get", {"id": found}))[0] == 200]


async def test_old_lineages_go_and_young_ones_stay(store: SqliteConnection, clock: Clock) -> None:
    await settled(store, "old:1", "old:1.1", "old")
    clock.advance(DAY)
    await settled(store, "young:1", "young")
    assert await store.prune(3_600) == Pruned(promises=3)
    assert await left(store, ("old", "old:1", "old:1.1", "young", "young:1")) == ["young", "young:1"]
    assert await store.prune(0) == Pruned(promises=2)


async def test_what_a_pending_lineage_has_settled_stays(store: SqliteConnection, clock: Clock) -> None:
    """A replay of the pending part asks for it."""
    await ask(store, "promise.create", create("a"))
    await settled(store, "a:1")
    await settled(store, "b", "b:d1.1")
    await ask(store, "promise.create", create("b:d1"))  # detached: it outlives its root
    await settled(store, "bb", "b;", "c:1")
    clock.advance(DAY)
    assert await store.prune(3_600) == Pruned(promises=3)
    assert await left(store, ("a", "a:1", "b", "b:d1", "b:d1.1", "bb", "b;", "c:1")) == [
        "a",
        "a:1",
        "b",
        "b:d1",
        "b:d1.1",
    ]
    await ask(store, "promise.settle", settle("b:d1"))
    clock.advance(DAY)
    assert await store.prune(3_600) == Pruned(promises=3)


async def test_a_pruned_id_is_free_again(store: SqliteConnection, clock: Clock) -> None:
    await settled(store, "a")
    clock.advance(DAY)
    await store.prune(1)
    status, data = await ask(store, "task.create", task_create(create("a")))
    assert status == 201
    assert data["task"]["version"] == 0


async def test_more_than_one_batch(store: SqliteConnection, clock: Clock) -> None:
    await settled(store, *(f"p{n}" for n in range(1_201)))
    await ask(store, "promise.create", create("keep"))
    await settled(store, *(f"keep:{n}" for n in range(600)))
    clock.advance(DAY)
    assert await store.prune(1) == Pruned(promises=1_201)
    assert await store.prune(1) == Pruned()


async def test_blobs_stay_while_a_checkpoint_names_them(store: SqliteConnection, clock: Clock) -> None:
    records = store.records
    lease = records.leases.acquire("s", "me", 10.0)
    blobs = [b"one", b"two", b"three"]
    digests = [blob_digest(data) for data in blobs]
    for data, digest in zip(blobs, digests, strict=True):
        records.checkpoints.put(data, digest)
    records.checkpoints.save(lease, "c1", 1, b"", digests[:2])
    records.checkpoints.save(lease, "c2", 2, b"", digests[1:2])
    clock.advance(DAY)
    assert records.checkpoints.missing(digests[2:]) == set()  # asked for: about to be named
    assert await store.prune(3_600) == Pruned()
    clock.advance(DAY)
    assert await store.prune(3_600) == Pruned(blobs=1)
    records.checkpoints.delete(lease, "c1")
    assert await store.prune(3_600) == Pruned(blobs=1)
    assert records.checkpoints.missing(digests) == {digests[0], digests[2]}
    assert records.checkpoints.blob(digests[1]) == b"two"
