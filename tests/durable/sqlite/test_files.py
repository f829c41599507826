"""What may be wrong with a file, and what becomes of it when processes start together or are killed."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pyrepl3_client.durable.sqlite import SqliteConnection, StoreBusy
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import MIGRATIONS, prepare
from pyrepl3_client.errors import StoreError
from tests.helpers.sqlite_store import as_unprivileged_user, ask, create

pytestmark = pytest.mark.anyio


async def refusal(path: Path | str) -> str:
    with pytest.raises(StoreError) as refused:
        await SqliteConnection.open(str(path), busy_timeout=0.002)
    assert str(path) in str(refused.value)
    return str(refused.value)


async def filled(path: Path, promises: int = 500) -> None:
    async with await SqliteConnection.open(str(path)) as store:
        for n in range(promises):
            await ask(store, "promise.create", create(f"p{n}", target="sqlite://any@default"))


# --- what cannot be opened ---


async def test_a_missing_directory(tmp_path: Path) -> None:
    assert "there is no directory" in await refusal(tmp_path / "no" / "state.db")
    assert not os.listdir(tmp_path)


async def test_a_directory(tmp_path: Path) -> None:
    assert "it is a directory (name a file in it)" in await refusal(tmp_path)


async def test_a_path_that_no_file_can_have() -> None:
    assert "check that its directory exists and may be written" in await refusal("/proc/state.db")


async def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 1000)
    assert "not an SQLite database; choose another path" in await refusal(path)
    assert path.read_text().startswith("Dear diary")


async def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")
    assert "another program's database (choose another path)" in await refusal(path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]


async def test_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path, 1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 999")
    assert "version 999, written by a newer pyrepl3" in await refusal(path)


async def test_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path)
    os.truncate(path, path.stat().st_size // 2)
    assert "corrupt; restore a backup, or move it away" in await refusal(path)


async def test_an_overwritten_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    assert "corrupt; restore a backup, or move it away" in await refusal(path)


async def test_a_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "another process holds its lock" in await refusal(path)
        other.execute("ROLLBACK")
    async with await SqliteConnection.open(str(path)) as store:
        assert (await ask(store, "promise.create", create("p0", target="sqlite://any@default")))[0] == 200


async def test_a_file_that_is_locked_for_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await filled(path, 1)
    waits: list[float] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        async def sleeper(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                other.execute("ROLLBACK")

        async with await SqliteConnection.open(str(path), sleeper=sleeper) as store:
            assert (await ask(store, "promise.create", create("a")))[0] == 201
    assert waits == [0.001, 0.001, 0.002]


@contextmanager
def unprivileged_directory() -> Generator[Path]:
    """Give a directory to a user whom modes can stop: root is not one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


async def test_a_read_only_file() -> None:
    with unprivileged_directory() as folder:
        path = folder / "state.db"
        await filled(path, 1)
        path.chmod(0o444)
        folder.chmod(0o555)
        with as_unprivileged_user():
            text = await refusal(path)
    assert "cannot be written" in text
    assert "change the mode of the file and of its directory" in text


async def test_a_directory_that_may_not_be_written() -> None:
    with unprivileged_directory() as folder:
        folder.chmod(0o555)
        with as_unprivileged_user():
            assert "check that its directory exists and may be written" in await refusal(folder / "state.db")


async def test_a_file_that_may_not_be_read() -> None:
    with unprivileged_directory() as folder:
        path = folder / "state.db"
        await filled(path, 1)
        path.chmod(0)
        with as_unprivileged_user():
            assert "cannot open the store" in await refusal(path)


# --- migration ---

SECOND = ("CREATE TABLE second (n INTEGER PRIMARY KEY)", "INSERT INTO second VALUES (1)")


def test_a_file_is_brought_to_the_newest_version_once(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    for migrations in (MIGRATIONS, (*MIGRATIONS, SECOND), (*MIGRATIONS, SECOND)):
        with closing(Database(path)) as database:
            prepare(database, migrations)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert other.execute("SELECT n FROM second").fetchall() == [(1,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with closing(Database(path)) as database:
        prepare(database)
        with pytest.raises(StoreError):
            prepare(database, (*MIGRATIONS, (*SECOND, "INSERT INTO nowhere VALUES (1)")))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert other.execute("SELECT count(*) FROM sqlite_master WHERE name = 'second'").fetchone() == (0,)


STARTER = """
import asyncio, sys
from pyrepl3_client.durable.sqlite import SqliteConnection
sys.path.insert(0, sys.argv[3])
from tests.helpers.sqlite_store import ask, create

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with await SqliteConnection.open(sys.argv[1]) as store:
        for n in range(20):
            status, _ = await ask(store, "promise.create", create(f"{sys.argv[2]}:{n}"))
            assert status == 201
            status, _ = await ask(store, "promise.create", create(f"shared:{n}"))
            print(n, status, flush=True)

asyncio.run(main())
"""


def test_processes_that_start_together_share_one_new_file(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    here = str(Path(__file__).parents[3])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, path, f"c{n}", here],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    outputs: list[str] = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        output, _ = child.communicate()
        assert child.returncode == 0
        outputs += output.splitlines()
    # Each shared promise was created once, and found by the three others.
    assert sorted(outputs) == sorted(f"{n} {status}" for n in range(20) for status in (200, 200, 200, 201))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM promises").fetchone() == (100,)
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- kill -9 ---

WRITER = """
import asyncio, sys
from pyrepl3_client.durable.sqlite import SqliteConnection
sys.path.insert(0, sys.argv[2])
from tests.helpers.sqlite_store import ask, create, settle

async def main():
    store = await SqliteConnection.open(sys.argv[1])
    n = 0
    while True:
        await ask(store, "promise.create", create(f"p{n}", target="sqlite://any@default"))
        await ask(store, "promise.settle", settle(f"p{n}", value={"data": "x" * 3000}))
        print(f"p{n}", flush=True)
        n += 1

asyncio.run(main())
"""


async def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    acknowledged = await asyncio.to_thread(write_until_killed, path)
    assert len(acknowledged) >= 300
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    async with await SqliteConnection.open(path) as store:
        for promise_id in acknowledged:
            _, data = await ask(store, "promise.get", {"id": promise_id})
            assert data["promise"]["state"] == "resolved"
    assert os.listdir(tmp_path) == ["state.db"]


def write_until_killed(path: str) -> list[str]:
    command = [sys.executable, "-c", WRITER, path, str(Path(__file__).parents[3])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(300)]
        child.kill()
        acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
    return acknowledged


HALF = """
import sys
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.schema import prepare

database = Database(sys.argv[1])
prepare(database)
with database.transaction():
    database.execute("PRAGMA cache_size = 1")
    for n in range(2000):
        database.execute("INSERT INTO blobs VALUES (?, 0, 4000, 1, zeroblob(4000))", (str(n),))
    print("in the middle", flush=True)
    sys.stdin.read()
"""


async def test_a_transaction_cut_off_by_a_kill_never_was(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    await asyncio.to_thread(leave_in_the_middle, path)
    async with await SqliteConnection.open(path) as store:
        assert store.records.checkpoints.missing(["0"]) == {"0"}
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM blobs").fetchone() == (0,)


def leave_in_the_middle(path: str) -> None:
    command = [sys.executable, "-c", HALF, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        child.kill()


def test_busy_is_a_kind_of_store_error() -> None:
    assert issubclass(StoreBusy, StoreError)
