"""Records in promises when servers fail, and owners come and go."""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrepl3_client._journal.protocol import CallRecord, Entry, SavedCheckpoint
from pyrepl3_client.durable.remote import executions as executions_module
from pyrepl3_client.durable.remote import large_values as large_values_module
from pyrepl3_client.durable.remote.connect import TimeLimitedNetwork, connect_http
from pyrepl3_client.durable.remote.fenced_store import find_newest
from pyrepl3_client.durable.resonate import runner as runner_module
from pyrepl3_client.durable.stores import open_store
from pyrepl3_client.errors import LeaseLost, SessionBusy, StoreError
from tests.helpers.journals import CODE, SESSION, Submitted, blobs, run
from tests.helpers.remote_journals import on_server, opened
from tests.helpers.resonate_server import InProcess, Server
from tests.helpers.sqlite_store import request

pytestmark = pytest.mark.anyio


class Crash:
    """Cuts an owner off from its server, after so many of its requests."""

    def __init__(self, server: Server, requests: int) -> None:
        self.left = requests
        self.pid = ""
        server.refuse = self

    def __call__(self, request: dict[str, Any]) -> bool:
        self.left -= 1
        return self.left < 0


def told_elsewhere(error: StoreError) -> None:
    pass


async def first_owner(server: Server, submitted: Submitted) -> None:
    async with on_server(server)(on_lost=told_elsewhere) as journal:
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        asking = asyncio.create_task(submitted.next())
        await asyncio.wait((executing, asking), return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        settling = [] if executing.done() else [journal.settle("e", b"x" * 40_000, rejected=False)]
        for ended in await asyncio.gather(executing, *settling, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended


async def test_an_execution_survives_its_parent_after_every_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first owner is cut off after 0, 1, 2, … requests: what it left, the second one finds."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(runner_module, "SUBMIT_TIMEOUT", 0.2)
    monkeypatch.setattr(executions_module, "FINISH_TIMEOUT", 0.2)
    cut = 0
    while True:
        server = Server()
        crash = Crash(server, cut)
        first = Submitted()
        try:
            await first_owner(server, first)
            finished = True
        except (StoreError, OSError):
            finished = False
        over = crash.left >= 0
        server.refuse = lambda request: False
        server.seconds_ahead = 120.0
        server.tick()
        async with server.running(), on_server(server)() as journal:
            second = Submitted()
            outcome, replayed = await run(journal, "e", b"of the second owner")
            if finished:
                assert (outcome, replayed) == (b"x" * 40_000, True), cut
            assert outcome in (b"x" * 40_000, b"of the second owner")
            assert await journal.execute("e", CODE, second) == (outcome, True), cut
            assert [entry.seq for entry in await journal.entries(9)] == [1]
            assert second.entries == []
        kept = {p.id: p.state for p in server.state.promises.values() if "data." not in p.id}
        assert kept[f"{SESSION}:log.1"] == "resolved"
        assert kept[f"{SESSION}.e:1"] == "resolved", cut
        assert kept[f"{SESSION}.e"] == "resolved", cut
        if over:
            break
        cut += 1
    assert cut > 15


async def test_a_paused_owner_is_fenced_off() -> None:
    server = Server()
    lost: list[StoreError] = []
    open_it = on_server(server)
    async with server.running(), open_it(on_lost=lost.append) as first:
        submitted = Submitted()
        executing = asyncio.create_task(first.execute("e", CODE, submitted))
        await submitted.next()
        server.seconds_ahead += 11.0  # as if it had slept: its lease has lapsed
        server.tick()
        async with open_it() as second:
            taken = asyncio.create_task(second.execute("e", CODE, submitted))
            await submitted.next()
            for writing in (
                first.settle("e", b"of the paused owner", rejected=False),
                first.execute("f", CODE, submitted),
                first.begin_call("e", CallRecord("c", "search", "d")),
                first.save(SavedCheckpoint("auto", 9, b"", ()), {}),
            ):
                with pytest.raises(LeaseLost, match=rf"belongs to process {os.getpid()} on .* since 20\d\d-"):
                    await writing
            with pytest.raises(LeaseLost):
                await executing
            assert len(lost) == 1
            await second.settle("e", b"of the second owner", rejected=False)
            assert await taken == (b"of the second owner", False)
            assert await second.calls("e") == {}
            assert [entry.execution_id for entry in await second.entries(9)] == ["e"]


async def test_renewing_notices_that_another_owner_has_come() -> None:
    server = Server()
    lost: asyncio.Queue[StoreError] = asyncio.Queue()
    open_it = on_server(server)
    async with server.running(), open_it(on_lost=lost.put_nowait, ttl=0.2):
        server.seconds_ahead += 1.0
        server.tick()
        async with open_it():
            assert isinstance(await lost.get(), LeaseLost)


async def test_a_lapsed_lease_that_nobody_took_is_taken_up_again() -> None:
    server = Server()
    open_it = on_server(server)
    async with server.running():
        async with open_it() as journal:
            await run(journal, "e")
            server.seconds_ahead += 11.0
            server.tick()
            assert await run(journal, "f") == (b"outcome", False)
            with pytest.raises(SessionBusy):
                async with open_it():
                    pass
        async with open_it() as journal:
            assert [entry.seq for entry in await journal.entries(9)] == [1, 2]


async def test_an_outcome_is_kept_while_the_server_is_away() -> None:
    server = Server()
    open_it = on_server(server)
    async with server.running(), open_it() as journal:
        submitted = Submitted()
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        server.refuse = lambda request: True
        with pytest.raises(StoreError, match="the server is away"):
            await journal.settle("e", b"done", rejected=False)
        with pytest.raises(StoreError, match="the server is away"):
            await executing
        with pytest.raises(StoreError, match="the server is away"):
            await journal.execute("e", CODE, submitted)
        server.refuse = lambda request: False
        assert await journal.execute("e", CODE, submitted) == (b"done", True)
        assert submitted.ids == ["e"]
    assert server.state.promises[f"{SESSION}.e:1"].state == "resolved"


async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    class Silent(InProcess):
        async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    link = Silent(Server(), "g", "p")
    with pytest.raises(StoreError, match=r"the store at http://host did not answer within 0\.01 s"):
        async with opened(TimeLimitedNetwork(link, "http://host", 0.01), link, pid="p"):
            pass


async def test_a_server_that_is_not_there_is_told_before_any_code_runs() -> None:
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    with pytest.raises(StoreError, match=f"the store at http://127.0.0.1:{port}/ cannot be reached") as error:
        await open_store(f"http://:secret@127.0.0.1:{port}/", SESSION)
    assert "secret" not in str(error.value)
    assert "secret" not in repr(error.value.__cause__)


async def test_the_token_is_sent_and_never_shown() -> None:
    server = Server()
    seen: set[object] = set()

    def look(request: dict[str, Any]) -> bool:
        seen.add(request["authorization"])
        return False

    server.refuse = look
    async with server.over_http() as url:
        journal = await open_store(url.replace("http://", "http://tok%2Fen@"), SESSION)
        await journal.close()
    assert seen == {"bearer tok/en"}


async def test_resonate_pg_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resonate_pg", None)
    with pytest.raises(StoreError, match=r"pip install 'pyrepl3\[postgres\]'") as error:
        await open_store("postgresql://user:secret@host/db", SESSION)
    assert "secret" not in str(error.value)


KILLED = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from tests.helpers.journals import CODE, SESSION, Submitted
from pyrepl3_client.durable.stores import open_store

async def main():
    journal = await open_store(sys.argv[1], SESSION, ttl=3600.0)
    submitted = Submitted()
    executing = asyncio.create_task(journal.execute("e", CODE, submitted))
    await submitted.next()
    print("submitted", flush=True)
    await executing

asyncio.run(main())
"""


def kill_when_submitted(url: str) -> None:
    command = [sys.executable, "-c", KILLED, url, str(Path(__file__).parents[3])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "submitted\n"
        child.kill()


async def test_an_owner_that_was_killed_on_this_machine_is_not_waited_for() -> None:
    server = Server()
    async with server.over_http() as url:
        await asyncio.to_thread(kill_when_submitted, url)
        link = connect_http(url, url, None, SESSION, 10.0)
        async with opened(link.network, link.sources[0], pid=link.pid) as journal:
            assert (await journal.load()).entries == (Entry(1, "e", CODE),)
            assert await run(journal, "e", b"of the second owner") == (b"of the second owner", False)


async def test_a_session_that_was_ended_in_resonate_says_so() -> None:
    server = Server()
    open_it = on_server(server)
    async with open_it():
        pass
    server.request(request("promise.settle", {"id": SESSION, "state": "resolved"}))
    with pytest.raises(StoreError, match="has ended: its promise 'analysis-7' was settled from outside"):
        async with open_it():
            pass


async def test_promises_carry_the_correlation_keys_as_tags() -> None:
    server = Server()
    async with server.running(), on_server(server)() as journal:
        submitted = Submitted()
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        await journal.begin_call("e", CallRecord("e:input:1", "input", "d"))
        await journal.begin_call("e", CallRecord("e:search:2.1", "search", "d"))
        await journal.settle("e", b"outcome", rejected=False)
        await executing
    keys = {p.id: p.tags["pyrepl3:key"] for p in server.state.promises.values() if "pyrepl3:key" in p.tags}
    assert keys == {
        f"{SESSION}:log.1": "exec:e",
        f"{SESSION}:log.1.call.1": "e:input:1",
        f"{SESSION}:log.1.call.2": "e:search:2.1",
    }


async def test_what_is_replaced_is_left_to_the_stores_retention() -> None:
    server = Server()
    async with on_server(server)() as journal:
        for n in range(4):
            parts = blobs(b"%d" % n * 100_000, b"same" * 50_000)
            await journal.save(SavedCheckpoint("auto", n, b"m" * 50_000, tuple(parts)), parts)
    states = [p.state for p in server.state.promises.values() if ":data." in p.id]
    # Of each save a pack and the checkpoint itself; the first pack is in use, for what has not changed.
    assert states.count("pending") == 3
    assert states.count("resolved") == 5


async def test_a_value_over_the_limit_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_values_module, "MAX_BYTES", 100_000)
    server = Server()
    async with server.running(), on_server(server)() as journal:
        submitted = Submitted()
        executing = asyncio.create_task(journal.execute("e", CODE, submitted))
        await submitted.next()
        with pytest.raises(StoreError, match="the outcome of execution 'e' has 100,001 bytes"):
            await journal.settle("e", bytes(100_001), rejected=False)
        with pytest.raises(StoreError, match="make it smaller"):
            await executing
        assert await run(journal, "f") == (b"outcome", False)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 9, 1000])
async def test_the_newest_is_found_in_few_questions(size: int) -> None:
    asked: list[int] = []

    async def exists(n: int) -> bool:
        asked.append(n)
        return n <= size

    assert await find_newest(exists) == size
    assert len(asked) <= 2 * size.bit_length() + 1
