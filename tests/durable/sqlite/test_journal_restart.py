"""The parent is killed, or paused, at any moment: what its session's next owner finds."""

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from resonate_base import ConnectorError

from pyrepl3_client._journal.protocol import CallRecord, Entry
from pyrepl3_client.durable.lease.owner import current_owner, is_dead
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite import SqliteConnection
from pyrepl3_client.errors import LeaseLost, SessionBusy, StoreError
from tests.helpers.journals import CODE, SESSION, Submitted, connected, journal_at, run
from tests.helpers.sqlite_store import Clock, create, request

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, signal, sys
sys.path.insert(0, sys.argv[2])
import msgspec
from tests.helpers.journals import CODE, SESSION, Submitted
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.durable.sqlite.journal import SqliteJournal
from pyrepl3_client.durable.sqlite import SqliteConnection

path, _, when, what = sys.argv[1:]

def stop_here():
    print("here", flush=True)
    signal.pause()  # with all that runs in this process

class Stops(SqliteConnection):
    '''Goes no further, before or after one kind of request, or the one transaction with the outcome.'''

    async def send(self, req, headers=None):
        kind = msgspec.json.decode(req)["kind"]
        if (when, what) == ("before", kind):
            stop_here()
        answer = await super().send(req, headers)
        if (when, what) == ("after", kind):
            stop_here()
        return answer

    async def record(self, work, resolve=None):
        if (when, what) == ("before", "outcome") and resolve:
            stop_here()
        done = await super().record(work, resolve)
        if (when, what) == ("after", "outcome") and resolve:
            stop_here()
        return done

async def main():
    connection = await Stops.open(path, group=session_group(SESSION))
    journal = await SqliteJournal.open(connection, SESSION, on_lost=print, ttl=3600.0, wait=0.0)
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    await journal.settle("e", b"of the first owner", rejected=False)
    await executing
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def owner(program: str, path: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run another owner of the session, which is killed in the end."""
    command = [sys.executable, "-c", program, str(path), str(Path(__file__).parents[3]), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def killed_at(path: Path, when: str, what: str) -> None:
    with owner(PROGRAM, path, when, what) as child:
        assert line_of(child) == "here"


KINDS = ("task.create", "task.fence", "task.suspend", "promise.register_listener")
LATER = ("task.acquire", "task.fulfill")
STEPS = [(when, what) for what in (*KINDS, "outcome", *LATER) for when in ("before", "after")]


@pytest.mark.parametrize(("when", "what"), STEPS, ids=lambda word: word)
async def test_an_execution_survives_its_parent_at_every_step(tmp_path: Path, when: str, what: str) -> None:
    path = tmp_path / "state.db"
    await asyncio.to_thread(killed_at, path, when, what)
    recorded = what in LATER or (when, what) == ("after", "outcome")
    # The dead owner's lease is good for an hour: it is not waited for.
    async with journal_at(path) as journal:
        expected = Entry(1, "e", CODE, "finished" if recorded else "started")
        assert (await journal.load()).entries == (expected,)
        if recorded:
            submitted = Submitted()
            assert await journal.execute("e", CODE, submitted) == (b"of the first owner", True)
            assert submitted.entries == []
        else:
            assert await run(journal, "e", b"of the second owner") == (b"of the second owner", False)
            assert journal.metrics.submissions == 1
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT id, state FROM promises ORDER BY n").fetchall() == [
            (f"{SESSION}.e", "resolved"),
            (f"{SESSION}.e:1", "resolved"),
        ]
        assert other.execute("SELECT state FROM tasks").fetchall() == [("fulfilled",)]


async def test_a_living_owner_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with journal_at(path):
        with pytest.raises(SessionBusy, match=f"owned by process {os.getpid()} on ") as busy:
            async with journal_at(path):
                pass
        assert busy.value.session_id == SESSION
        async with journal_at(path, "another"):
            pass
    async with journal_at(path):
        pass


async def test_the_next_owner_may_wait_for_the_first_to_close(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def second() -> tuple[bytes, bool]:
        async with journal_at(path, wait=30.0) as journal:
            return await run(journal, "e")

    async with journal_at(path):
        waiting = asyncio.create_task(second())
    assert await waiting == (b"outcome", False)


PAUSED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from tests.helpers.journals import CODE, SESSION, Submitted, journal_at
from pyrepl3_client._journal.protocol import CallRecord, SavedCheckpoint
from pyrepl3_client.errors import StoreError

lost = []

async def refused(writing):
    try:
        await writing
    except StoreError as error:
        return type(error).__name__
    return "done"

async def main():
    async with journal_at(sys.argv[1], on_lost=lost.append, ttl=0.3) as journal:
        submitted = Submitted()
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        print("submitted", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        print(
            await refused(journal.settle("e", b"of the paused owner", rejected=False)),
            await refused(executing),
            await refused(journal.execute("f", CODE, submitted)),
            await refused(journal.begin_call("e", CallRecord("c", "search", "d"))),
            await refused(journal.save(SavedCheckpoint("auto", 9, b"", ()), {})),
            len(lost),
            flush=True,
        )

asyncio.run(main())
"""


async def test_an_owner_that_was_paused_is_fenced_off(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with owner(PAUSED, path) as child:
        assert await asyncio.to_thread(line_of, child) == "submitted"
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)  # noqa: ASYNC222 - it stops itself at once
        async with journal_at(path, wait=30.0) as journal:
            submitted = Submitted()
            executing = asyncio.create_task(journal.execute("e", CODE, submitted))
            await submitted.next()
            os.kill(child.pid, signal.SIGCONT)
            told = await asyncio.to_thread(line_of, child)
            assert told == "LeaseLost LeaseLost LeaseLost LeaseLost LeaseLost 1"
            await journal.settle("e", b"of the second owner", rejected=False)
            assert await executing == (b"of the second owner", False)
            assert [entry.execution_id for entry in await journal.entries(9)] == ["e"]
            assert await journal.calls("e") == {}


async def test_renewing_notices_that_another_owner_has_come(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    lost: asyncio.Queue[StoreError] = asyncio.Queue()
    async with journal_at(path, on_lost=lost.put_nowait, ttl=0.03) as journal:
        executing = asyncio.create_task(journal.execute("e", CODE, Submitted()))
        async with await SqliteConnection.open(str(path), clock=Clock(1 << 60)) as other:
            lease = await other.record(lambda records: records.leases.acquire(SESSION, "other", 10.0))
            error = await lost.get()
            assert isinstance(error, LeaseLost)
            assert error.owner == "other"
            with pytest.raises(LeaseLost):
                await executing
            with pytest.raises(LeaseLost):
                await journal.begin_call("e", CallRecord("c", "search", "d"))
        assert lost.empty()
    async with await SqliteConnection.open(str(path)) as other:
        # Closing the first owner's journal took nothing from the second.
        other.records.leases.check(lease)


async def test_a_fenced_connection_makes_no_promise_and_takes_no_message(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first, second = await connected(path), await connected(path)
    taken: list[str] = []
    first.recv(taken.append)
    await first.start()
    old = first.records.leases.acquire(SESSION, "first", 10.0)
    first.fence(old)
    await first.send(request("promise.create", create("p")))
    second.records.leases.acquire(SESSION, "second", 10.0, lambda owner: owner == "first")
    with pytest.raises(ConnectorError) as refused:
        await first.send(request("promise.settle", {"id": "p", "state": "resolved"}))
    assert isinstance(refused.value.error, LeaseLost)
    # Nobody receives on `second` yet, so this message waits in the file.
    await second.send(request("promise.create", create("q", target=f"sqlite://any@{session_group(SESSION)}")))
    first.tick()
    await asyncio.sleep(0)
    assert taken == []
    second.recv(taken.append)
    second.tick()
    await asyncio.sleep(0)
    assert len(taken) == 1
    first.close()
    second.close()


def test_this_owner_lives_and_one_of_another_start_does_not() -> None:
    owner = current_owner()
    host, pid, started, boot, namespace, nonce = owner.split("/")

    def named(**changes: str) -> str:
        parts = {"host": host, "pid": pid, "started": started, "boot": boot, "namespace": namespace}
        return "/".join((*(parts | changes).values(), nonce))

    assert not is_dead(owner, one_machine=True)
    assert is_dead(named(started="1"), one_machine=False)
    assert is_dead(named(boot="earlier"), one_machine=True)
    assert not is_dead(named(boot="earlier"), one_machine=False)
    assert not is_dead(named(namespace="pid:[1]", started="1"), one_machine=True)
    assert not is_dead("somebody else's words", one_machine=True)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(named(pid=str(child.pid)), one_machine=False)  # a zombie by now
    assert is_dead(named(pid=str(child.pid)), one_machine=False)


def test_an_owner_that_cannot_be_looked_at_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fd_left(pid: int) -> int | None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    owner = current_owner()
    monkeypatch.setattr("pyrepl3_client.durable.lease.owner.start_time", no_fd_left)
    assert not is_dead(owner, one_machine=True)
