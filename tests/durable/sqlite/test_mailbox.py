"""Messages: at once within a process, soon between processes, and each to one receiver of a group."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrepl3_client.durable.sqlite import SqliteConnection
from tests.helpers.sqlite_store import START, Clock, ask, create, settle, suspend, task_create

pytestmark = pytest.mark.anyio
TARGET = "sqlite://any@default"


class Inbox:
    """Keeps the messages of one connection, and lets a test wait for one."""

    def __init__(self, store: SqliteConnection) -> None:
        self.messages: list[Any] = []
        self._arrived = asyncio.Event()
        store.recv(self._receive)

    def _receive(self, body: str) -> None:
        self.messages.append(msgspec.json.decode(body))
        self._arrived.set()

    async def first(self) -> Any:
        return await self.one_that(lambda message: True)

    async def one_that(self, fits: Callable[[Any], bool]) -> Any:
        while True:
            for message in self.messages:
                if fits(message):
                    return message
            self._arrived.clear()
            await self._arrived.wait()


def told(message: Any) -> tuple[str, str]:
    """Return a message's kind, and the id of what it is about."""
    data = message["data"]
    return message["kind"], (data.get("task") or data.get("promise"))["id"]


async def test_a_message_arrives_in_the_next_turn_of_the_loop() -> None:
    async with await SqliteConnection.open(":memory:") as store:
        inbox = Inbox(store)
        await ask(store, "promise.create", create("a", target=TARGET))
        assert inbox.messages == []  # whoever asked has the answer first
        await asyncio.sleep(0)
        assert inbox.messages == [{"kind": "execute", "data": {"task": {"id": "a", "version": 0}}}]


async def test_messages_of_one_request_arrive_in_order_at_every_receiver() -> None:
    async with await SqliteConnection.open(":memory:") as store:
        inboxes = Inbox(store), Inbox(store)
        for n in range(3):
            task = f"t{n}"
            await ask(store, "task.create", task_create(create(task, target=TARGET)))
            await ask(store, "promise.create", create("a"))
            await ask(store, "task.suspend", suspend(task, ["a"], 0))
        await ask(store, "promise.register_listener", {"awaited": "a", "address": store.unicast()})
        await ask(store, "promise.settle", settle("a"))
        await asyncio.sleep(0)
        expected = [("execute", "t0"), ("execute", "t1"), ("execute", "t2"), ("unblock", "a")]
        for inbox in inboxes:
            assert [told(message) for message in inbox.messages] == expected


async def test_a_receiver_that_is_gone_gets_nothing() -> None:
    async with await SqliteConnection.open(":memory:") as store:
        inbox = Inbox(store)
        await ask(store, "promise.create", create("a", target=TARGET))
        await store.stop()
        await asyncio.sleep(0)
        assert inbox.messages == []
        assert (await ask(store, "promise.get", {"id": "a"}))[0] == 200  # requests are answered until closed


async def test_a_listener_in_another_connection_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    async with await SqliteConnection.open(path) as one, await SqliteConnection.open(path) as two:
        here, there = Inbox(one), Inbox(two)
        await one.start()
        await two.start()
        await ask(one, "promise.create", create("a"))
        await ask(two, "promise.register_listener", {"awaited": "a", "address": two.unicast()})
        await ask(one, "promise.settle", settle("a", value={"data": "eA=="}))
        message = await there.first()
        assert told(message) == ("unblock", "a")
        assert message["data"]["promise"]["value"] == {"data": "eA=="}
        assert here.messages == []


async def test_a_group_gets_its_tasks_wherever_they_were_made(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    async with (
        await SqliteConnection.open(path) as client,
        await SqliteConnection.open(path, group="workers") as worker,
    ):
        here, there = Inbox(client), Inbox(worker)
        await worker.start()
        await ask(client, "promise.create", create("a", target=client.resolve_target("workers")))
        assert told(await there.first()) == ("execute", "a")
        assert here.messages == []


async def test_a_task_goes_to_one_member_of_its_group(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    async with (
        await SqliteConnection.open(path, group="clients") as client,
        await SqliteConnection.open(path) as one,
        await SqliteConnection.open(path) as two,
    ):
        inboxes = Inbox(one), Inbox(two)
        await ask(client, "promise.create", create("a", target=TARGET))
        for _ in range(3):
            one.tick()
            two.tick()
        await asyncio.sleep(0)
        assert [len(inbox.messages) for inbox in inboxes] == [1, 0]


async def test_mail_that_nobody_comes_for_is_thrown_away(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    clock = Clock()
    async with await SqliteConnection.open(path, clock=clock) as store:
        await ask(store, "promise.create", create("a", target="sqlite://any@nobody"))
        clock.advance(61_000)
        store.tick()  # the task is due again: it is offered anew, and the old offer is gone
    async with await SqliteConnection.open(path, clock=clock, group="nobody") as late:
        inbox = Inbox(late)
        late.tick()
        await asyncio.sleep(0)
        assert len(inbox.messages) == 1


CHILD = """
import asyncio, sys
from pyrepl3_client.durable.sqlite import SqliteConnection
sys.path.insert(0, sys.argv[2])
from tests.helpers.sqlite_store import ask, settle

async def main():
    async with await SqliteConnection.open(sys.argv[1]) as store:
        await ask(store, "promise.settle", settle("a", value={"data": "eA=="}))

asyncio.run(main())
"""


async def test_another_process_settles_and_we_are_told(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    async with await SqliteConnection.open(path) as store:
        inbox = Inbox(store)
        await store.start()
        await ask(store, "task.create", task_create(create("t", target=TARGET)))
        await ask(store, "promise.create", create("a"))
        await ask(store, "task.suspend", suspend("t", ["a"], 0))
        await ask(store, "promise.register_listener", {"awaited": "a", "address": store.unicast()})
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", CHILD, path, str(Path(__file__).parents[3])], check=True
        )
        await inbox.first()
        assert sorted(told(message) for message in inbox.messages) == [("execute", "t"), ("unblock", "a")]


# --- deadlines ---


async def test_a_deadline_wakes_the_timer_by_itself() -> None:
    async with await SqliteConnection.open(":memory:") as store:
        inbox = Inbox(store)
        await store.start()
        _, data = await ask(store, "promise.create", create("later", target="local://nobody"))
        soon = data["promise"]["createdAt"] + 20
        await ask(
            store, "promise.create", create("a", target="local://nobody", timeout_at=soon, timer="true")
        )
        await ask(store, "promise.register_listener", {"awaited": "a", "address": store.unicast()})
        message = await inbox.one_that(lambda message: told(message) == ("unblock", "a"))
        assert message["data"]["promise"]["state"] == "resolved"


async def test_a_deadline_that_passed_while_closed_is_met_at_the_start(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    clock = Clock()
    async with await SqliteConnection.open(path, clock=clock) as store:
        await ask(store, "promise.create", create("a", target=TARGET, timeout_at=START + 1_000))
    clock.advance(5_000)
    async with await SqliteConnection.open(path, clock=clock) as store:
        await store.start()
        _, data = await ask(store, "promise.get", {"id": "a"})
        assert data["promise"]["state"] == "rejected_timedout"
        assert data["promise"]["settledAt"] == START + 1_000


async def test_the_timer_survives_a_locked_file(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    clock = Clock()
    async with await SqliteConnection.open(path, clock=clock, tick_interval=0.001) as store:
        inbox = Inbox(store)
        await ask(store, "task.create", task_create(create("a", target=TARGET), ttl=1_000))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        clock.advance(1_000)
        await store.start()  # what is due cannot be done
        other.execute("ROLLBACK")
        other.close()
        assert told(await inbox.first()) == ("execute", "a")
