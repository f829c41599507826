"""Nothing that a session does may take longer because much was recorded: every look-up has its index."""

from contextlib import closing
from typing import Any

import pytest

from pyrepl3_client._journal.protocol import blob_digest
from pyrepl3_client.durable.sqlite import SqliteConnection
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import prepare
from tests.helpers.sqlite_store import START, Clock, action, ask, create, settle, suspend, task_create

pytestmark = pytest.mark.anyio

GROWS_WITH_WHAT_IS_ALIVE = {
    "SCAN tasks USING INDEX tasks_due",  # `reclaim`, over the tasks that a timer has to look at
    "SCAN schedules",  # `schedule.search` asks for all of them
    "SCAN json_each VIRTUAL TABLE INDEX 1:",  # the names of the blobs that are being saved
    "SCAN CONSTANT ROW",  # of a SELECT without a table
}


async def do_everything(store: SqliteConnection, clock: Clock) -> None:
    target = "sqlite://any@default"
    requests: list[tuple[str, Any]] = [
        ("task.create", task_create(create("s.1", target=target, branch="s.1"))),
        ("task.fence", {"id": "s.1", "version": 0, "action": action("promise.create", create("s.1:1"))}),
        ("task.suspend", suspend("s.1", ["s.1:1"], 0)),
        ("promise.register_listener", {"awaited": "s.1", "address": store.unicast()}),
        ("promise.settle", settle("s.1:1")),
        ("task.acquire", {"id": "s.1", "pid": "p1", "ttl": 1_000}),
        ("task.heartbeat", {"pid": "p1", "tasks": [{"id": "s.1", "version": 1}]}),
        ("task.release", {"id": "s.1", "version": 1}),
        ("task.acquire", {"id": "s.1", "pid": "p1", "ttl": 1_000}),
        ("task.fulfill", {"id": "s.1", "version": 2, "action": action("promise.settle", settle("s.1"))}),
        ("promise.create", create("due", target=target, timeout_at=START + 50_000)),
        ("promise.create", create("else", target="sqlite://any@others")),
        ("schedule.get", {"id": "a"}),
        ("schedule.delete", {"id": "a"}),
        ("schedule.search", {}),
    ]
    for kind, data in requests:
        assert (await ask(store, kind, data))[0] in {200, 201, 404}
    for _ in range(3):
        clock.advance(31_000)
        store.tick()
    await store.reclaim("s.")
    records = store.records
    lease = records.leases.renew(records.leases.acquire("s", "me", 10.0), 10.0)
    records.executions.start(lease, "e", "d", "code")
    records.executions.add_death(lease, "e")
    records.executions.finish(lease, "e", b"")
    records.executions.after("s", 0)
    records.executions.up_to("s", 9)
    records.executions.unfinished("s", 9)
    records.executions.outcome("s", "e")
    records.calls.begin_call(lease, "e", "c", "search", "args")
    records.calls.retry_call(lease, "e", "c")
    records.calls.finish_call(lease, "e", "c", b"")
    records.calls.of("s", "e")
    records.checkpoints.missing(["x"])
    records.checkpoints.put(b"x", blob_digest(b"x"))
    records.checkpoints.save(lease, "c", 1, b"", [blob_digest(b"x")])
    records.checkpoints.newest("s")
    records.checkpoints.of("s")
    records.checkpoints.digests("s", "c")
    records.checkpoints.delete(lease, "c")
    records.leases.release(lease)
    clock.advance(10_000_000)
    await store.prune(1)


async def test_every_look_up_uses_an_index(tmp_path: Any) -> None:
    clock = Clock()
    seen: set[str] = set()
    with closing(Database(str(tmp_path / "state.db"))) as database:
        prepare(database)
        database.trace(seen.add)
        store = SqliteConnection(database, clock=clock)
        store.recv(lambda body: None)
        await do_everything(store, clock)
        database.trace(None)
        scans: set[str] = set()
        for sql in seen:
            if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
                plan = database.execute("EXPLAIN QUERY PLAN " + sql).fetchall()
                scans |= {detail for *_, detail in plan if detail.startswith("SCAN")}
    assert len(seen) > 60
    assert scans <= GROWS_WITH_WHAT_IS_ALIVE
