"""`open_store`: what is in a store, seen beside its owners, and what is deleted, compacted and backed up."""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def filled(store: Path, name: str = "s", code: str = "import os; data = os.urandom(300_000)") -> None:
    async with pyrepl3.open_session(name, store=store, config=quick()) as session:
        await session.execute(code, execution_id="e1")
        await session.execute("len(data)", execution_id="e2")
        await session.checkpoint("kept")


async def test_a_store_is_read_beside_the_owner_of_its_sessions(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    before = datetime.now(UTC)
    await filled(path, "closed")
    async with (
        pyrepl3.open_session("used", store=path, config=quick()) as session,
        pyrepl3.open_store(path) as store,
    ):
        await session.execute("x = 1", execution_id="e")
        closed, used = await store.sessions()
        assert (closed.session_id, closed.state, closed.owner, closed.executions) == (
            "closed",
            "closed",
            "",
            2,
        )
        assert (used.session_id, used.state, used.executions) == ("used", "open", 1)
        assert used.owner.startswith(f"process {os.getpid()} on ")
        assert closed.bytes > 300_000 > used.bytes > 2048
        assert closed.confinement == used.confinement == "limits"
        assert before.timestamp() - 1 < closed.last_used.timestamp() <= datetime.now(UTC).timestamp()
        first, second = await store.history("closed")
        assert (first.execution_id, first.number, first.status) == ("e1", 1, "finished")
        assert second.code == "len(data)"
        assert second.finished_at is not None
        assert second.finished_at >= second.started_at
        assert "kept" in [each.checkpoint_id for each in await store.checkpoints("closed")]
        with pytest.raises(pyrepl3.StoreError, match="there is no session 'none'"):
            await store.history("none")
        # A reader owns nothing.
        await session.execute("x = 2")
    async with pyrepl3.open_session("closed", store=path, config=quick()) as session:
        assert (await session.execute("len(data)")).value == 300_000


async def test_a_session_is_deleted_whole_and_only_when_it_is_not_in_use(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    own = pyrepl3.WorkerConfig(cwd="own", close_grace=1.0)
    async with pyrepl3.open_session("gone", store=path, config=own) as session:
        await session.execute("open('file', 'w').write('x'); import os; data = os.urandom(300_000)")
        await session.checkpoint("kept")
        async with pyrepl3.open_store(path) as store:
            with pytest.raises(pyrepl3.SessionBusy, match=f"process {os.getpid()}"):
                await store.delete("gone")
    await filled(path, "stays", "data = b'x' * 10")
    assert os.listdir(tmp_path / "state.db-work") == ["s-gone"]
    async with pyrepl3.open_store(path) as store:
        await store.delete("gone")
        assert [each.session_id for each in await store.sessions()] == ["stays"]
        with pytest.raises(pyrepl3.StoreError, match="there is no session 'gone'"):
            await store.delete("gone")
        assert await store.compact() > 250_000
    assert os.listdir(tmp_path / "state.db-work") == []
    with closing(sqlite3.connect(path)) as database:
        for table, key in (
            ("executions", "session"),
            ("checkpoints", "session"),
            ("texts", "session"),
            ("promises", "id"),
            ("tasks", "id"),
        ):
            rows = database.execute(f"SELECT {key} FROM {table}").fetchall()
            assert [row for row in rows if str(row[0]).startswith("gone")] == [], table
        assert (database.execute("SELECT sum(size) FROM blobs").fetchone()[0] or 0) < 100_000
    # Under its name there is a new one, and its ids are new.
    async with pyrepl3.open_session("gone", store=path, config=quick()) as session:
        assert (await session.execute("'data' in globals()")).value is False
    async with pyrepl3.open_session("stays", store=path, config=quick()) as session:
        assert (await session.execute("len(data)")).value == 10


async def test_a_backup_is_whole_while_the_store_is_in_use(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    async with (
        pyrepl3.open_session("s", store=path, config=quick()) as session,
        pyrepl3.open_store(path) as store,
    ):
        await session.execute("x = 1", execution_id="e")
        await store.backup(copy)
        await session.execute("x = 2", execution_id="f")
        with pytest.raises(pyrepl3.StoreError, match="it is there already"):
            await store.backup(copy)
        # The copy has no owner: it opens while the first is in use, and does not know what came later.
        async with pyrepl3.open_session("s", store=copy, config=quick()) as other:
            assert (await other.execute("x = 1", execution_id="e")).replayed
            assert (await other.execute("x")).value == 1
            assert not (await other.execute("x = 2", execution_id="f")).replayed
        assert (await session.execute("x")).value == 2
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "state.db"]
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_pruning_leaves_what_a_session_needs(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path)
    async with pyrepl3.open_store(path) as store:
        assert (await store.prune(older_than=3600)).promises == 0
        assert (await store.prune(older_than=0)).promises >= 4
    async with pyrepl3.open_session("s", store=path, config=quick()) as session:
        assert (await session.execute("len(data)", execution_id="e2")).replayed
        assert (await session.execute("len(data)")).value == 300_000


async def test_what_open_store_cannot_open(tmp_path: Path) -> None:
    with pytest.raises(pyrepl3.StoreError, match=r"there is no store at .*create=True makes one"):
        async with pyrepl3.open_store(tmp_path / "state.db"):
            raise AssertionError
    assert os.listdir(tmp_path) == []
    async with pyrepl3.open_store(tmp_path / "state.db", create=True) as store:
        assert await store.sessions() == []
    with pytest.raises(pyrepl3.PyRepl3Error, match="the store is not open"):
        await store.sessions()
    for url, said in (("memory:", "in memory"), ("postgresql://u:secret@host/db", "postgresql://host/db")):
        with pytest.raises(pyrepl3.StoreError, match=said) as refused:
            pyrepl3.open_store(url)
        assert "secret" not in str(refused.value)
