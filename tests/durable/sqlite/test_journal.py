"""The record of a session on SQLite, as a session uses it."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyrepl3_client import BridgeMetrics
from pyrepl3_client._journal.protocol import CallRecord, Entry, SavedCheckpoint, Spec
from pyrepl3_client.durable.sqlite import PART_BYTES
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.errors import ExecutionIdConflict, StoreError
from pyrepl3_schemas.messages import Unsaved
from tests.helpers.journals import CODE, Submitted, blobs, connected, journal_at, rows, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqliteJournal]:
    async with journal_at(path) as opened:
        yield opened


# --- executions ---


async def test_an_id_resolves_once(journal: SqliteJournal) -> None:
    assert await run(journal, "e", b"first") == (b"first", False)
    again = Submitted()
    assert await journal.execute("e", CODE, again) == (b"first", True)
    assert again.entries == []


async def test_it_resolves_once_over_a_restart_too(path: Path) -> None:
    async with journal_at(path) as journal:
        await run(journal, "e", b"first")
    async with journal_at(path) as journal:
        again = Submitted()
        assert await journal.execute("e", CODE, again) == (b"first", True)
        assert again.entries == []
        assert journal.metrics == BridgeMetrics(0, 0, 0, 0)


async def test_the_same_id_with_other_code_is_a_conflict_that_shows_where(journal: SqliteJournal) -> None:
    await run(journal, "e", spec=Spec("x = 1\ny = 2\nz = 3"))
    with pytest.raises(ExecutionIdConflict, match="from line 2 on: 'y = 2' was recorded, 'y = 5' was given"):
        await journal.execute("e", Spec("x = 1\ny = 5\nz = 3"), Submitted())


async def test_what_an_execution_is_run_with_comes_back(path: Path) -> None:
    spec = Spec("x", timeout=2.5, result_mode="none", store_history=False)
    async with journal_at(path) as journal:
        await run(journal, "first")
        await run(journal, "second", spec=spec)
        await journal.add_death("second")
    async with journal_at(path) as journal:
        assert await journal.entries(9) == [
            Entry(1, "first", CODE, "finished"),
            Entry(2, "second", spec, "finished", 1),
        ]
        assert await journal.entries(1) == [Entry(1, "first", CODE, "finished")]


async def test_executions_are_submitted_in_the_order_of_the_calls(journal: SqliteJournal) -> None:
    submitted = Submitted()
    ids = [f"e{n}" for n in range(30)]
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(journal.execute(name, CODE, submitted)) for name in ids]
        for _ in ids:
            await submitted.next()
        assert journal.metrics.pending == journal.metrics.high_water == 30
        for name in reversed(ids):
            await journal.settle(name, name.encode(), rejected=False)
    assert submitted.ids == ids
    assert [entry.seq for entry in submitted.entries] == list(range(1, 31))
    assert [task.result() for task in waiting] == [(name.encode(), False) for name in ids]
    assert journal.metrics.pending == 0


async def test_two_who_ask_for_one_id_share_one_run(journal: SqliteJournal) -> None:
    submitted = Submitted()
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(journal.execute("e", CODE, submitted)) for _ in range(2)]
        await submitted.next()
        await journal.settle("e", b"once", rejected=False)
    assert [task.result()[0] for task in both] == [b"once"] * 2
    assert submitted.ids == ["e"]


async def test_the_first_outcome_stays(journal: SqliteJournal) -> None:
    await run(journal, "e", b"first")
    await journal.settle("e", b"second", rejected=True)
    assert await journal.execute("e", CODE, Submitted()) == (b"first", True)


async def test_giving_up_the_wait_leaves_the_execution_to_its_session(journal: SqliteJournal) -> None:
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    executing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await executing
    await journal.settle("e", b"late", rejected=False)
    assert await journal.execute("e", CODE, submitted) == (b"late", True)
    assert submitted.ids == ["e"]


async def test_a_submitter_that_fails_fails_its_caller_and_no_promise(
    path: Path, journal: SqliteJournal
) -> None:
    def fails(entry: Entry) -> None:
        raise RuntimeError("no worker")

    with pytest.raises(RuntimeError, match="no worker"):
        await journal.execute("e", CODE, fails)
    assert rows(path, "SELECT DISTINCT state FROM promises") == [("pending",)]
    assert await run(journal, "e", b"later") == (b"later", False)


async def test_every_function_comes_to_its_end(path: Path) -> None:
    async with journal_at(path) as journal:
        for n in range(5):
            await run(journal, f"e{n}")
        assert journal.metrics.submissions == 5
    assert rows(path, "SELECT state, count(*) FROM promises GROUP BY state") == [("resolved", 10)]
    assert rows(path, "SELECT state, count(*) FROM tasks GROUP BY state") == [("fulfilled", 5)]
    assert rows(path, "SELECT count(*) FROM callbacks UNION ALL SELECT count(*) FROM listeners") == [
        (0,),
        (0,),
    ]


async def test_closing_ends_what_is_pending_and_keeps_it_for_the_next_owner(path: Path) -> None:
    submitted = Submitted()
    before = asyncio.all_tasks()
    async with journal_at(path) as journal:
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        await journal.close()
        with pytest.raises(StoreError, match="session 'analysis-7' was closed; the execution stays recorded"):
            await executing
        with pytest.raises(StoreError, match="is closed; open the session again"):
            await journal.execute("f", CODE, submitted)
        await journal.close()  # again, and nothing happens
    assert asyncio.all_tasks() == before
    async with journal_at(path) as journal:
        assert (await journal.load()).entries == (Entry(1, "e", CODE),)
        assert await run(journal, "e", b"at last") == (b"at last", False)
    assert rows(path, "SELECT DISTINCT state FROM promises") == [("resolved",)]


async def test_two_sessions_share_a_file(path: Path) -> None:
    async with journal_at(path, "a") as first, journal_at(path, "b") as second:
        assert await run(first, "e", b"a's") == (b"a's", False)
        assert await run(second, "e", b"b's") == (b"b's", False)
        assert [entry.seq for entry in await second.entries(9)] == [1]


async def test_odd_ids_stay_apart(path: Path) -> None:
    names = ("a", "a.b", "a%2Eb", "b.c", "ü\n\x00", ".", "%")
    async with journal_at(path, "a.b") as first, journal_at(path, "a") as second:
        for name in names:
            assert await run(first, name, b"1" + name.encode()) == (b"1" + name.encode(), False)
            assert await run(second, name, b"2" + name.encode()) == (b"2" + name.encode(), False)
    assert rows(path, "SELECT count(*) FROM tasks WHERE state = 'fulfilled'") == [(2 * len(names),)]


async def test_text_that_no_store_takes_is_refused_and_nothing_is_recorded(journal: SqliteJournal) -> None:
    for execution_id, code in (("e", "'\ud800'"), ("\ud800", "x")):
        with pytest.raises(StoreError, match="no Unicode"):
            await journal.execute(execution_id, Spec(code), Submitted())
    assert await journal.entries(9) == []


# --- calls ---


async def test_calls_come_back_in_the_order_of_their_intents(path: Path) -> None:
    submitted = Submitted()
    async with journal_at(path) as journal:
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        await journal.begin_call("e", CallRecord("e:search:2.1", "search", "d1"))
        await journal.begin_call("e", CallRecord("e:input:1", "input", "d2"))
        await journal.finish_call("e", "e:input:1", b"yes")
        await journal.finish_call("e", "e:input:1", b"no")
        assert await journal.retry_call("e", "e:search:2.1") == 2
        with pytest.raises(StoreError, match="no open call"):
            await journal.retry_call("e", "e:input:1")
    await asyncio.wait((executing,))
    assert isinstance(executing.exception(), StoreError)
    async with journal_at(path) as journal:
        assert list((await journal.calls("e")).items()) == [
            ("e:search:2.1", CallRecord("e:search:2.1", "search", "d1", None, 2)),
            ("e:input:1", CallRecord("e:input:1", "input", "d2", b"yes")),
        ]
        assert await journal.calls("another") == {}


# --- checkpoints ---


async def test_a_session_starts_from_its_newest_checkpoint_and_what_came_after(path: Path) -> None:
    unsaved = (Unsaved("sock", "socket", "is open"),)
    async with journal_at(path) as journal:
        for name in ("a", "b", "c"):
            await run(journal, name)
        parts = blobs(b"one", b"two")
        saved = SavedCheckpoint("auto", 2, b"manifest", tuple(sorted(parts)), unsaved)
        await journal.save(saved, parts)
        await journal.save(SavedCheckpoint("old", 1, b"", ()), {})
        history = await journal.load()
        assert history.checkpoint == saved
        assert [entry.execution_id for entry in history.entries] == ["c"]
        assert await journal.checkpoint_ids() == ["old", "auto"]
        assert await journal.blobs(parts) == parts
    async with journal_at(path) as journal:
        assert await journal.load() == history
        assert await journal.checkpoint("old") == SavedCheckpoint("old", 1, b"", ())
        assert await journal.checkpoint("none") is None


async def test_an_older_execution_that_has_not_ended_is_part_of_the_start(path: Path) -> None:
    submitted = Submitted()
    async with journal_at(path) as journal:
        executing = asyncio.create_task(journal.execute("a", CODE, submitted))
        await submitted.next()
        await run(journal, "b")
        await run(journal, "c")
        await journal.save(SavedCheckpoint("auto", 2, b"", ()), {})
        assert [entry.execution_id for entry in (await journal.load()).entries] == ["a", "c"]
    await asyncio.wait((executing,))
    assert executing.exception() is not None


async def test_a_checkpoint_that_is_replaced_takes_its_blobs_with_it(
    path: Path, journal: SqliteJournal
) -> None:
    first, second = blobs(b"kept", b"dropped"), blobs(b"kept", b"new")
    await journal.save(SavedCheckpoint("auto", 1, b"", tuple(first)), first)
    await journal.save(SavedCheckpoint("auto", 2, b"", tuple(second)), blobs(b"new"))
    assert await journal.blobs(second) == second
    with pytest.raises(StoreError, match="there is no blob"):
        await journal.blobs(blobs(b"dropped"))
    assert rows(path, "SELECT count(*) FROM blobs") == [(2,)]


async def test_a_large_blob_is_stored_in_parts_and_the_loop_runs_on_between_them(
    path: Path, journal: SqliteJournal
) -> None:
    data = random.Random(1).randbytes(5 * PART_BYTES + 1)
    (digest,) = large = blobs(data)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    having_turns = asyncio.create_task(others())
    await journal.save(SavedCheckpoint("auto", 1, b"", (digest,)), {**large, **blobs(b"small", b"")})
    assert turns >= 6
    turns = 0
    assert await journal.blobs([digest]) == large
    assert turns >= 5
    having_turns.cancel()
    assert rows(path, "SELECT count(*), max(length(data)) FROM blob_parts") == [(5, PART_BYTES)]
    await journal.save(SavedCheckpoint("auto", 2, b"", ()), {})
    assert rows(path, "SELECT count(*) FROM blob_parts") == [(0,)]


async def test_half_a_blob_is_none(journal: SqliteJournal, path: Path) -> None:
    """As a parent leaves it that is killed while it saves a checkpoint."""
    data = random.Random(2).randbytes(3 * PART_BYTES)
    (digest,) = large = blobs(data)
    async with await connected(path, "another") as another:
        checkpoints = another.records.checkpoints
        assert checkpoints.put_part(data, digest, 0)
        assert checkpoints.put_part(data, digest, 1)
    with pytest.raises(StoreError, match="there is no blob"):
        await journal.blobs([digest])
    with pytest.raises(StoreError, match="never put"):
        await journal.save(SavedCheckpoint("auto", 1, b"", (digest,)), {})
    await journal.save(SavedCheckpoint("auto", 1, b"", (digest,)), large)
    assert await journal.blobs([digest]) == large


async def test_a_blob_that_is_missing_or_other_data_is_refused(journal: SqliteJournal) -> None:
    (digest,) = blobs(b"honest")
    with pytest.raises(StoreError, match="never put"):
        await journal.save(SavedCheckpoint("auto", 1, b"", (digest,)), {})
    with pytest.raises(StoreError, match="holds other data than its digest says"):
        await journal.save(SavedCheckpoint("auto", 1, b"", (digest,)), {digest: b"hostile"})
    assert await journal.checkpoint("auto") is None
