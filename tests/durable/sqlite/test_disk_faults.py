"""Sessions whose store is full, locked, read-only, corrupt or gone: at their opening, and at their work."""

import asyncio
import os
import resource
import signal
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import Result
from tests.helpers.sqlite_store import as_unprivileged_user

pytestmark = pytest.mark.anyio

FULL = "free space"
"""What is said of a disk that takes no more."""


class Disk:
    """Keeps this process from writing to files: the kernel says EFBIG where a full disk has ENOSPC."""

    def __init__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    @contextmanager
    def full(self) -> Generator[None]:
        self.fill()
        try:
            yield
        finally:
            self.make_room()


@pytest.fixture
def disk() -> Generator[Disk]:
    disk = Disk()
    yield disk
    disk.make_room()


class World:
    """What the code asks of the outside, counted; the disk is full from one of these questions on."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.prompts: list[str] = []
        self.paid: list[tuple[int, int]] = []
        self.full_at = ""

    def answer(self, prompt: str) -> str:
        self.prompts.append(str(prompt))
        return self._said(str(prompt))

    def pay(self, amount: int, context: pyrepl3.CallContext) -> int:
        self.paid.append((amount, context.attempt))
        self._said(str(amount))
        return 2 * amount

    def _said(self, question: str) -> str:
        if question == self.full_at:
            self.full_at = ""
            self.disk.fill()
        return question.upper()


@pytest.fixture
def world(disk: Disk) -> World:
    return World(disk)


def opened(world: World, path: Path, **options: Any) -> Any:
    offered = {"pay": world.pay, "repay": pyrepl3.capability(world.pay, repeatable=True)}
    return pyrepl3.open_session(
        "s", store=path, capabilities=offered, on_input=world.answer,
        config=pyrepl3.WorkerConfig(cancel_grace=0.4, kill_grace=0.4, close_grace=1.0), **options,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


ASKS = "first = input('a')\npaid = repay(1)\nsecond = input('b')\n(first, paid, second)"


@pytest.mark.parametrize("full_at", ["a", "1", "b"])
async def test_what_was_answered_on_a_full_disk_is_not_lost_but_for_the_last(
    world: World, path: Path, full_at: str
) -> None:
    async with opened(world, path) as session:
        await session.execute("x = 1", execution_id="one")
        world.full_at = full_at
        with pytest.raises(pyrepl3.StoreError, match=FULL):
            await session.execute(ASKS, execution_id="two")
        world.disk.make_room()
        result = await session.execute(ASKS, execution_id="two")
        assert result.value == ["A", 2, "B"]
        assert (await session.execute("x, first, second")).value == [1, "A", "B"]
    # The answer that the store did not take is the only one that was asked for again.
    asked = sorted([*world.prompts, *(str(amount) for amount, _ in world.paid)])
    assert asked == sorted(["a", "1", "b", full_at])
    assert world.paid == ([(1, 1), (1, 2)] if full_at == "1" else [(1, 1)])


@pytest.mark.parametrize("full_at", ["a", "1", "b"])
async def test_a_call_that_may_not_be_repeated_is_not_after_a_full_disk(
    world: World, path: Path, full_at: str
) -> None:
    code = ASKS.replace("repay", "pay")
    async with opened(world, path) as session:
        world.full_at = full_at
        with pytest.raises(pyrepl3.StoreError, match=FULL):
            await session.execute(code, execution_id="two")
        world.disk.make_room()
        result = await session.execute(code, execution_id="two", check=False)
        if full_at == "1":
            assert result.error is not None
            assert result.error.type == "CapabilityOutcomeUnknown"
        else:
            assert result.value == ["A", 2, "B"]
    assert world.paid == [(1, 1)]


async def test_the_disk_fills_before_an_execution_is_on_record(world: World, path: Path, disk: Disk) -> None:
    async with opened(world, path) as session:
        await session.execute("x = 1")
        with disk.full():
            for _ in range(2):
                with pytest.raises(pyrepl3.StoreError, match=FULL):
                    await session.execute("x = 2", execution_id="two")
        assert (await session.execute("x")).value == 1
        assert (await session.execute("x = 2", execution_id="two")).replayed is False
        assert (await session.execute("x")).value == 2


async def test_an_outcome_that_did_not_fit_is_had_when_there_is_room(world: World, path: Path) -> None:
    """It has run, and is not run again."""
    async with opened(world, path) as session:
        shouted: list[str] = []

        def see(output: pyrepl3.Output) -> None:
            # The output is on its way before the outcome is: whatever comes to be recorded finds it full.
            shouted.append(output.data)
            world.disk.fill()

        with pytest.raises(pyrepl3.StoreError, match=FULL):
            await session.execute("print('run')\n6 * 7", execution_id="two", on_output=see)
        world.disk.make_room()
        result = await session.execute("print('run')\n6 * 7", execution_id="two", on_output=see)
        assert (result.value, result.stdout) == (42, "run\n")
    assert shouted == ["run\n"]


async def test_a_worker_that_dies_while_the_disk_is_full_is_replaced(
    world: World, path: Path, disk: Disk
) -> None:
    """Nothing ran, so nothing has to be written for that."""
    async with opened(world, path) as session:
        await session.execute("x = 1", execution_id="one")
        disk.fill()
        os.kill(session.worker.pid, signal.SIGKILL)
        with pytest.raises(pyrepl3.StoreError, match=FULL):
            await session.execute("x = 2", execution_id="two")
        disk.make_room()
        assert (await session.execute("x")).value == 1
        assert len(session.recoveries) == 1


async def test_an_execution_that_loses_its_worker_while_the_disk_is_full_goes_on_when_opened_again(
    world: World, path: Path, disk: Disk
) -> None:
    def see(output: pyrepl3.Output) -> None:
        disk.fill()

    flag = str(path.with_name("flag"))
    code = (
        "import os\nname = input('a')\nprint('now', flush=True)\n"
        f"if not os.path.exists({flag!r}):\n    os.mkdir({flag!r})\n"
        "    os.system(f'kill -9 {os.getpid()}')\nname"
    )
    async with opened(world, path, on_output=see) as session:
        await session.execute("x = 1", execution_id="one")
        with pytest.raises(pyrepl3.StoreError, match=FULL) as refused:
            await session.execute(code, execution_id="two")
        assert "open the session again" in str(refused.value)
    disk.make_room()
    async with opened(world, path) as session:
        assert (await session.execute(code, execution_id="two")).value == "A"
        assert (await session.execute("x, name")).value == [1, "A"]
    assert world.prompts == ["a"]


# --- files that cannot be used ------------------------------------------------------------------------


async def refused(world: World, path: Path | str, said: str) -> None:
    """Open a session: it is refused before any worker is there that could run code."""
    with pytest.raises(pyrepl3.StoreError, match=said):
        async with opened(world, Path(path)):
            raise AssertionError("it was opened")


async def filled(world: World, path: Path) -> None:
    async with opened(world, path) as session:
        await session.execute("import random; noise = random.randbytes(200_000)")
        await session.checkpoint("here")


def overwrite(path: Path) -> bytes:
    """Leave a file's beginning alone; give what it is then."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    return path.read_bytes()


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def test_a_corrupt_file(world: World, path: Path) -> None:
    await filled(world, path)
    before = overwrite(path)
    await refused(world, path, r"corrupt; restore a backup, or move it away \(with its -wal file\)")
    assert read(path) == before


async def test_a_file_of_something_else(world: World, path: Path) -> None:
    write(path, b"Dear diary, " * 1000)
    await refused(world, path, "not an SQLite database; choose another path, or move it away")


async def test_a_full_disk(world: World, path: Path, disk: Disk) -> None:
    with disk.full():
        await refused(world, path, FULL)
    await filled(world, path)
    with disk.full():
        await refused(world, path, FULL)
    async with opened(world, path) as session:
        assert (await session.execute("len(noise)")).value == 200_000


async def test_a_file_that_another_program_has_locked(world: World, path: Path) -> None:
    await filled(world, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(pyrepl3.StoreError, match="another process holds its lock"):
            async with pyrepl3.open_session("s", store=f"sqlite://{path}?busy_timeout=0.01"):
                raise AssertionError("it was opened")
        other.execute("ROLLBACK")


async def test_a_file_that_may_not_be_written(world: World) -> None:
    with TemporaryDirectory(dir="/dev/shm") as name:
        path = Path(name, "state.db")
        await filled(world, path)
        os.chmod(path, 0o444)
        os.chmod(name, 0o555)
        with as_unprivileged_user():
            await refused(world, path, "change the mode of the file and of its directory, or choose another")
        os.chmod(name, 0o755)


# --- in the middle of the work ------------------------------------------------------------------------


async def test_a_file_that_becomes_corrupt_fails_what_comes_and_no_more(world: World, path: Path) -> None:
    async with opened(world, path) as session:
        await session.execute("x = 1", execution_id="one")
        damage(path)
        with pytest.raises(pyrepl3.StoreError, match="restore a backup, or move it away"):
            await session.execute("x = 2", execution_id="two")
    await refused(world, path, "restore a backup, or move it away")


def damage(path: Path) -> None:
    """Overwrite a store's file, as a stray program may, and have everybody read it again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.execute("UPDATE sessions SET token = token")
        overwrite(path)
        other.execute("UPDATE sessions SET token = token")


async def test_a_file_that_is_deleted_is_told_of_before_anything_is_taken_for_recorded(
    world: World, path: Path
) -> None:
    async with opened(world, path) as session:
        await session.execute("x = 1", execution_id="one")
        for name in list(path.parent.iterdir()):
            name.unlink()
        with pytest.raises(pyrepl3.StoreError, match="is gone"):
            await session.execute("x = 2", execution_id="two")
    assert list(path.parent.iterdir()) == []


# --- executions that somebody else had begun ----------------------------------------------------------


async def test_a_failure_that_was_not_to_be_raised_is_not_when_the_execution_is_taken_up(
    world: World, path: Path
) -> None:
    """The session had begun it again by itself before anybody asked."""
    asked = asyncio.Event()

    async def hang(prompt: str) -> str:
        asked.set()
        await asyncio.Event().wait()
        return prompt

    code = "raise ValueError(input('why? '))"
    async with pyrepl3.open_session("s", store=path, on_input=hang) as session:
        execution = session.start(code, execution_id="one", check=False)
        await asked.wait()
    with pytest.raises(pyrepl3.SessionClosed):
        await execution.result()
    async with opened(world, path) as session:
        result = await session.execute(code, execution_id="one", check=False)
        assert result.error is not None
        assert result.error.message == "WHY? "


async def test_a_close_ends_the_wait_for_an_outcome_that_is_being_recorded(tmp_path: Path) -> None:
    """The worker has said how it ended, and another process keeps the file locked just then."""
    path = tmp_path / "sessions.db"
    ended = asyncio.Event()

    def lock(message: object) -> None:
        if isinstance(message, Result):
            other.execute("BEGIN IMMEDIATE")
            ended.set()

    async with pyrepl3.open_session("s", store=path, recovery="replay") as session:
        other = sqlite3.connect(path, isolation_level=None)
        session.interceptors.append(lock)
        execution = session.start("1 + 1", execution_id="e")
        await ended.wait()
        closing = asyncio.create_task(session.close())
        with pytest.raises(pyrepl3.SessionClosed):
            await asyncio.wait_for(execution.result(), 10)
        other.rollback()
        other.close()
        await closing
    async with pyrepl3.open_session("s", store=path) as session:
        assert (await session.execute("1 + 1", execution_id="e")).value == 2
