"""A store that has lost its write-ahead log is refused; one that has it opens, however it was left."""

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._journal.protocol import CallRecord, SavedCheckpoint, TextPart, blob_digest
from pyrepl3_client.durable.sqlite.tables.creation import open_database
from pyrepl3_client.errors import StoreError
from tests.helpers.journals import CODE, SESSION, Submitted, journal_at, run
from tests.helpers.real_sessions import quick

pytestmark = pytest.mark.anyio

LOST = "lost its write-ahead log"
WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[3])
from pyrepl3_client.durable.sqlite.tables import wal_guard
wal_guard._COMMITS = int(sys.argv[2])
from tests.helpers.journals import journal_at, run

async def main():
    async with journal_at(sys.argv[1], wait=30) as journal:
        for n in range(100000):
            await run(journal, f"e{n}", b"outcome %d" % n)
            print(n, flush=True)

asyncio.run(main())
"""
"""Records executions until it is killed, and says which are on record."""
ROOT = str(Path(__file__).parents[3])


def kill_writer(path: Path, executions: int, commits: int = 400) -> int:
    """Record so many executions in a process that is killed then; return how many were acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), str(commits), ROOT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done = 0
        for line in process.stdout:
            done = int(line) + 1
            if done >= executions:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return done


async def recorded(path: Path, executions: int) -> list[bool]:
    """Return of each execution whether its outcome is on record."""
    async with journal_at(path) as journal:
        return [await journal.outcome(f"e{n}") == b"outcome %d" % n for n in range(executions)]


async def refused(path: Path, said: str = LOST) -> None:
    with pytest.raises(StoreError, match=said) as error:
        async with journal_at(path):
            raise AssertionError
    assert str(path) in str(error.value)


async def test_a_file_that_was_copied_without_its_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    done = kill_writer(path, 20)
    alone, both, asked = tmp_path / "alone.db", tmp_path / "both.db", tmp_path / "asked.db"
    shutil.copy(path, alone)
    shutil.copy(path, both)
    shutil.copy(f"{path}-wal", f"{both}-wal")
    await refused(alone)
    await refused(alone)  # and again: the first try has left nothing
    assert all(await recorded(both, done))
    with closing(sqlite3.connect(both)) as source, closing(sqlite3.connect(asked)) as copy:
        source.backup(copy)
    assert all(await recorded(asked, done))
    # A program that looks into a store folds the log away: the file is whole then.
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM executions").fetchone()[0] >= done
    assert not (tmp_path / "state.db-wal").exists()
    assert all(await recorded(path, done))


async def test_copies_of_a_store_in_use(tmp_path: Path) -> None:
    path, alone, asked, whole = (tmp_path / name for name in ("s.db", "alone.db", "asked.db", "whole.db"))
    async with journal_at(path) as journal:
        for n in range(5):
            await run(journal, f"e{n}", b"outcome %d" % n)
        shutil.copy(path, alone)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(asked)) as copy:
            source.backup(copy)
            source.execute("VACUUM INTO ?", (str(whole),))
    await refused(alone)
    for each in (path, asked, whole):
        with closing(sqlite3.connect(each)) as other:
            # The copies hold the lease of an owner that lives; it has no claim to them.
            other.execute("UPDATE sessions SET owner = ''")
            other.commit()
        assert all(await recorded(each, 5)), each
    # Closed by its last user, the file is all there is.
    shutil.copy(path, alone)
    assert all(await recorded(alone, 5))


async def test_a_store_that_was_killed_at_any_moment_of_a_fold_opens(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    chance = random.Random(7)
    done = 0
    for _ in range(8):
        done = max(done, kill_writer(path, chance.randrange(1, 40), commits=1))
    assert all(await recorded(path, done))


async def test_the_log_does_not_grow_with_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrepl3_client.durable.sqlite.tables.wal_guard._COMMITS", 20)
    async with journal_at(tmp_path / "state.db") as journal:
        sizes: list[int] = []
        for n in range(60):
            await run(journal, f"e{n}")
            sizes.append(os.stat(tmp_path / "state.db-wal").st_size)
        assert sizes[-1] < 3 * max(sizes[:10])


async def test_a_log_that_is_removed_while_it_is_in_use_takes_nothing_with_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    program = WRITER.replace("print(n, flush=True)", "print(n, flush=True); sys.stdin.readline()")
    command = [sys.executable, "-c", program, str(path), "400", ROOT]
    with subprocess.Popen(  # noqa: ASYNC220 - it is there before anything else happens
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for n in range(30):
            assert process.stdout.readline() == f"{n}\n"
            if n == 29:
                os.unlink(f"{path}-wal")
            process.stdin.write("\n")
            process.stdin.flush()
        # Nothing more is acknowledged: the next execution's error has ended it.
        assert process.stdout.read() == ""
        assert "was removed while it was in use" in process.stderr.read()
    assert all(await recorded(path, 30))


async def test_an_empty_file_is_no_new_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    await refused(path, "an empty file, which no store ever is")
    assert path.stat().st_size == 0


async def test_a_store_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    before = os.umask(0)
    try:
        async with journal_at(path) as journal:
            await run(journal, "e")
            modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    finally:
        os.umask(before)
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


def test_a_store_is_made_where_files_without_names_or_links_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # EISDIR, as such a file system says
    with closing(open_database(str(tmp_path / "linked.db"))):
        pass

    def no_links(*_args: object, **_options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    with closing(open_database(str(tmp_path / "renamed.db"))):
        pass
    assert sorted(os.listdir(tmp_path)) == ["linked.db", "renamed.db"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


async def test_what_a_disk_has_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    data = b"a blob"
    digest = blob_digest(data)
    async with journal_at(path) as journal:
        submitted = Submitted()
        await run(journal, "e")
        await journal.begin_call("e", CallRecord("e:f:1", "f", "d"))
        await journal.finish_call("e", "e:f:1", b"answer")
        await journal.put_text("e", "stdout", 1, TextPart(b"text", ""), 1000)
        await journal.save(SavedCheckpoint("c", 1, b"manifest", (digest,)), {digest: data})

        async def damage(statement: str) -> None:
            with closing(sqlite3.connect(path)) as disk:
                assert disk.execute(statement).rowcount == 1
                disk.commit()

        await damage("UPDATE executions SET outcome = CAST(x'00' || substr(outcome, 2) AS BLOB)")
        with pytest.raises(
            StoreError, match="the outcome of execution 'e' of session 'analysis-7' is damaged"
        ):
            await journal.outcome("e")
        with pytest.raises(StoreError, match="is damaged"):
            await journal.execute("e", CODE, submitted)
        assert submitted.entries == []
        await damage("UPDATE calls SET outcome = x'00'")
        with pytest.raises(StoreError, match="the outcome of call 'e:f:1'"):
            await journal.calls("e")
        await damage("UPDATE texts SET data = CAST(data AS TEXT)")
        with pytest.raises(StoreError, match="what execution 'e' of session 'analysis-7' wrote to stdout"):
            await journal.text_part("e", "stdout", 1)
        await damage("UPDATE blobs SET data = x'00'")
        with pytest.raises(StoreError, match=f"blob {digest[:12]}"):
            await journal.blobs([digest])
        await damage("UPDATE executions SET code = 'rm'")
        with pytest.raises(StoreError, match="the code of execution 'e'"):
            await journal.entries(1)
        await damage("UPDATE checkpoints SET manifest = x'00'")
        with pytest.raises(StoreError, match="checkpoint 'c'"):
            await journal.load()


async def test_a_session_of_a_store_without_its_log_asks_nothing_of_the_host_again(tmp_path: Path) -> None:
    path, alone = tmp_path / "state.db", tmp_path / "alone.db"
    paid: list[int] = []
    offered = {"pay": paid.append}
    async with pyrepl3.open_session(SESSION, store=path, config=quick(), capabilities=offered) as session:
        await session.execute("pay(1)", execution_id="e")
        shutil.copy(path, alone)
    with pytest.raises(pyrepl3.StoreError, match=LOST):
        await pyrepl3.open_session(SESSION, store=alone, config=quick(), capabilities=offered)
    assert paid == [1]
