"""A session's record in promises alone: on a server, in PostgreSQL, or wherever Resonate can be."""

import asyncio
import base64
import os
import pickle
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrepl3_client._journal.protocol import (
    TEXT_PART_CHARACTERS,
    CallRecord,
    Entry,
    SavedCheckpoint,
    Spec,
    TextPart,
    TextSize,
)
from pyrepl3_client.durable.remote.journal import RemoteJournal
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite import SqliteConnection
from pyrepl3_client.durable.stores import open_store
from pyrepl3_client.errors import ExecutionIdConflict, SessionBusy, StoreError
from pyrepl3_schemas.messages import Unsaved
from tests.durable.test_hostile_records import planted
from tests.helpers.journals import CODE, SESSION, Submitted, blobs, run
from tests.helpers.remote_journals import Opened, on_server, opened
from tests.helpers.resonate_server import Server

pytestmark = pytest.mark.anyio

DSN = os.environ.get("PYREPL3_TEST_POSTGRES_DSN", "")


@pytest.fixture(
    params=[
        "process",
        "http",
        "sqlite",
        pytest.param(
            "postgres",
            marks=pytest.mark.skipif(not DSN, reason="PYREPL3_TEST_POSTGRES_DSN names no database"),
        ),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    """Return what opens a journal on each kind of store."""
    async with AsyncExitStack() as stack:
        server = Server()
        if request.param == "process":
            await stack.enter_async_context(server.running())
            yield on_server(server)
        elif request.param == "sqlite":

            @asynccontextmanager
            async def in_a_file(session: str = SESSION, **options: Any) -> AsyncGenerator[RemoteJournal]:
                path = str(tmp_path / "state.db")
                async with (
                    await SqliteConnection.open(path, group=session_group(session)) as link,
                    opened(link, link, pid=link.pid, session=session, **options) as journal,
                ):
                    yield journal

            yield in_a_file
        else:
            url = DSN or await stack.enter_async_context(server.over_http())
            if request.param == "http":
                url = url if url.startswith("http") else await stack.enter_async_context(server.over_http())
            unique = os.urandom(4).hex()

            @asynccontextmanager
            async def by_url(session: str = SESSION, **options: Any) -> AsyncGenerator[RemoteJournal]:
                journal = await open_store(url, f"{session}-{unique}", **options)
                assert isinstance(journal, RemoteJournal)
                try:
                    yield journal
                finally:
                    await journal.close()

            yield by_url


async def test_an_id_resolves_once_and_over_a_restart(store: Opened) -> None:
    async with store() as journal:
        assert await run(journal, "e", b"first") == (b"first", False)
        again = Submitted()
        assert await journal.execute("e", CODE, again) == (b"first", True)
        with pytest.raises(ExecutionIdConflict, match="from line 2 on: 'y = 2' was recorded"):
            await journal.execute("e", Spec("x = 1\ny = 3"), again)
    async with store() as journal:
        assert await journal.execute("e", CODE, again) == (b"first", True)
        with pytest.raises(ExecutionIdConflict, match="from line 2 on: 'y = 2' was recorded"):
            await journal.execute("e", Spec("x = 1\ny = 3"), again)
        assert again.entries == []
        assert journal.metrics.submissions == 0


async def test_the_confinement_level_is_the_one_recorded_last(store: Opened) -> None:
    async with store() as journal:
        assert await journal.level() is None
        await journal.record_level("strict")
    async with store() as journal:
        assert await journal.level() == "strict"
        await journal.record_level("limits")
        assert await journal.level() == "limits"
    async with store() as journal:
        assert await journal.level() == "limits"


async def test_executions_keep_their_order_and_what_they_are_run_with(store: Opened) -> None:
    submitted = Submitted()
    specs = [Spec("x" * n, timeout=n / 2, result_mode="none", store_history=False) for n in range(1, 6)]
    async with store() as journal:
        async with asyncio.TaskGroup() as tasks:
            for n, spec in enumerate(specs):
                tasks.create_task(journal.execute(f"e{n}", spec, submitted))
            for _ in specs:
                await submitted.next()
            for n in reversed(range(5)):
                await journal.settle(f"e{n}", b"%d" % n, rejected=n == 3)
        assert await journal.add_death("e4") == 1
    async with store() as journal:
        assert submitted.ids == [f"e{n}" for n in range(5)]
        statuses = ["finished", "finished", "finished", "rejected", "finished"]
        expected = [Entry(n + 1, f"e{n}", specs[n], statuses[n]) for n in range(5)]  # pyright: ignore[reportArgumentType]
        assert await journal.entries(9) == expected
        assert await journal.entries(2) == expected[:2]
        assert (await journal.load()).entries == tuple(expected)


async def test_what_was_in_flight_goes_on_with_its_calls(store: Opened) -> None:
    submitted = Submitted()
    async with store() as journal:
        await run(journal, "done")
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        async with asyncio.TaskGroup() as tasks:
            for n in range(5):
                tasks.create_task(journal.begin_call("e", CallRecord(f"e:search:{n}", "search", f"d{n}")))
        await journal.finish_call("e", "e:search:1", b"large" * 20_000)
        await journal.finish_call("e", "e:search:1", b"too late")
        assert await journal.retry_call("e", "e:search:3") == 2
        assert await journal.retry_call("e", "e:search:3") == 3
        assert await journal.add_death("e") == 1
        await journal.exempt_next_death("e")
        assert await journal.add_death("e") == 1
        assert await journal.add_death("e") == 2
        with pytest.raises(StoreError, match="no open call"):
            await journal.retry_call("e", "e:search:1")
        with pytest.raises(StoreError, match="there is no call"):
            await journal.finish_call("e", "e:search:9", b"")
        calls = await journal.calls("e")
    await asyncio.wait((executing,))
    assert isinstance(executing.exception(), StoreError)
    async with store() as journal:
        assert (await journal.load()).entries[1] == Entry(2, "e", CODE, "started", 2)
        assert await journal.calls("e") == calls
        assert list(calls) == [f"e:search:{n}" for n in range(5)]
        assert calls["e:search:3"] == CallRecord("e:search:3", "search", "d3", None, 3)
        assert calls["e:search:1"].outcome == b"large" * 20_000
        assert await journal.calls("another") == {}
        assert await run(journal, "e", b"at last") == (b"at last", False)
        assert journal.metrics.submissions == 1
        assert list(await journal.calls("e")) == list(calls)


async def test_checkpoints_come_back_and_replace_one_another(store: Opened) -> None:
    unsaved = (Unsaved("sock", "socket", "is open"),)
    small, large = b"small", random.Random(3).randbytes(1_200_000)
    first, second = blobs(small, large, b""), blobs(large, b"new")
    submitted = Submitted()
    async with store() as journal:
        early = asyncio.create_task(journal.execute("early", CODE, submitted))
        await submitted.next()
        await run(journal, "a")
        await run(journal, "b")
        await journal.save(SavedCheckpoint("named", 1, b"", ()), {})
        await journal.save(SavedCheckpoint("auto", 2, b"m1", tuple(first), unsaved), first)
        await journal.save(SavedCheckpoint("auto", 2, b"m2", tuple(second), unsaved), blobs(b"new"))
        with pytest.raises(StoreError, match="there is no blob"):
            await journal.blobs(blobs(b""))
        with pytest.raises(StoreError, match="never put"):
            await journal.save(SavedCheckpoint("auto", 3, b"", tuple(blobs(b"no"))), {})
        with pytest.raises(StoreError, match="holds other data than its digest says"):
            await journal.save(
                SavedCheckpoint("auto", 3, b"", tuple(blobs(b"no"))), {min(blobs(b"no")): b"y"}
            )
    await asyncio.wait((early,))
    assert isinstance(early.exception(), StoreError)
    async with store() as journal:
        history = await journal.load()
        assert history.checkpoint == SavedCheckpoint("auto", 2, b"m2", tuple(second), unsaved)
        assert [entry.execution_id for entry in history.entries] == ["early", "b"]
        assert await journal.blobs(second) == second
        assert await journal.checkpoint_ids() == ["named", "auto"]
        assert await journal.checkpoint("named") == SavedCheckpoint("named", 1, b"", ())
        assert await journal.checkpoint("none") is None
        assert await run(journal, "early") == (b"outcome", False)
        await journal.save(SavedCheckpoint("auto", 3, b"m3", (), ()), {})
    async with store() as journal:
        assert (await journal.load()).entries == ()
        assert await journal.execute("early", CODE, submitted) == (b"outcome", True)
        assert [entry.seq for entry in await journal.entries(9)] == [1, 2, 3]


async def test_a_large_outcome_comes_back_whole(store: Opened) -> None:
    outcome = random.Random(4).randbytes(1_500_000)
    async with store() as journal:
        assert await run(journal, "e", outcome, Spec("#" * 100_000)) == (outcome, False)
    async with store() as journal:
        assert await journal.execute("e", Spec("#" * 100_000), Submitted()) == (outcome, True)


async def test_what_an_execution_wrote_comes_back_in_parts(store: Opened) -> None:
    parts = [TextPart(f"{n}é".encode() * (TEXT_PART_CHARACTERS // 2)) for n in range(3)]
    async with store() as journal:
        await run(journal, "a", b"outcome")
        assert await journal.text_size("a", "stdout") is None
        assert await journal.text_size("stranger", "stdout") is None
        for n, part in enumerate(parts, start=1):
            assert await journal.put_text("a", "stdout", n, part, 2**30)
        assert await journal.put_text("a", "stderr", 1, TextPart(b"", ""), 2**30)
        assert not await journal.put_text("a", "stdout", 4, parts[0], 3 * 10**5)
    async with store() as journal:
        size = await journal.text_size("a", "stdout")
        assert size is not None
        assert size == TextSize(3 * TEXT_PART_CHARACTERS, "its end is not on record")
        assert [await journal.text_part("a", "stdout", n) for n in (1, 2, 3, 4)] == [*parts, None]
        assert await journal.put_text("a", "stdout", 4, TextPart("end é".encode(), ""), 2**30)
        assert await journal.text_size("a", "stdout") == TextSize(3 * TEXT_PART_CHARACTERS + 5)
        assert await journal.text_size("a", "stderr") == TextSize(0)


async def test_the_second_owner_is_told_and_may_wait(store: Opened) -> None:
    async def second() -> tuple[bytes, bool]:
        async with store(wait=30.0) as journal:
            return await run(journal, "e")

    async with store():
        with pytest.raises(SessionBusy, match=f"owned by process {os.getpid()} on "):
            async with store():
                pass
        async with store("another") as other:
            assert await run(other, "e") == (b"outcome", False)
        waiting = asyncio.create_task(second())
    assert await waiting == (b"outcome", False)


async def test_odd_ids_stay_apart(store: Opened) -> None:
    names = ("a", "a.b", "a%2Eb", "ü\n", ".")
    async with store("a.b") as first, store("a") as second:
        for name in names:
            assert await run(first, name, b"1") == (b"1", False)
            assert await run(second, name, b"2") == (b"2", False)


async def test_no_payload_is_ever_unpickled(store: Opened, tmp_path: Path) -> None:
    bomb = planted(tmp_path / "marker")
    shapes = [
        msgspec.json.encode(bomb),
        base64.b64encode(msgspec.json.encode(bomb)),
        pickle.dumps(bomb),
    ]
    for turn in range(2):
        async with store() as journal:
            for n, shape in enumerate(shapes):
                spec = Spec(msgspec.json.encode(bomb).decode())
                assert await run(journal, f"e{n}", shape, spec) == (shape, turn == 1)
                if turn == 0:
                    await journal.begin_call(f"e{n}", CallRecord(shape.hex(), "search", "d"))
                    await journal.finish_call(f"e{n}", shape.hex(), shape)
                assert (await journal.calls(f"e{n}"))[shape.hex()].outcome == shape
    assert not (tmp_path / "marker").exists()
