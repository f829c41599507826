"""`on_event`: what comes, in which order, and what a bad handler does: nothing."""

import asyncio
import logging
import os
import threading

import anyio
import msgspec
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from pyrepl3_client._telemetry import handlers
from pyrepl3_client._telemetry.announcer import Telemetry
from tests.helpers.real_sessions import PATIENCE, quick

# pyright: reportPrivateUsage=false

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

LIFE = ["spawn", "ready", "call", "call", "death", "recovery", "spawn", "ready", "recovery", "stop"]
"""Of a session as below, but for checkpoints."""
CALLS = "import os\nassert double(2) == 4\ntry: double(None)\nexcept TypeError: pass"


def double(x: int) -> int:
    return 2 * x


def kinds(events: list[pyrepl3.SessionEvent]) -> list[str]:
    tags = [str(type(event).__struct_config__.tag) for event in events]
    return [tag for tag in tags if tag != "checkpoint"]


async def test_the_events_of_a_life_come_in_order_and_before_close_returns() -> None:
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session(
        "s", config=quick(), capabilities={"double": double}, on_event=events.append
    ) as session:
        await session.execute(CALLS, execution_id="calls")
        first = session.worker.pid
        os.kill(first, 9)
        await session.execute("1", execution_id="after")
    assert kinds(events) == LIFE
    ok, error = (event for event in events if isinstance(event, pyrepl3.CallEvent))
    assert (ok.execution_id, ok.call_id, ok.name, ok.outcome) == ("calls", "calls:double:1", "double", "ok")
    assert (error.outcome, error.error_type) == ("error", "TypeError")
    (death,) = (event for event in events if isinstance(event, pyrepl3.DeathEvent))
    assert (death.worker, death.certificate.signal) == (first, 9)
    began, done = (event for event in events if isinstance(event, pyrepl3.RecoveryEvent))
    assert (began.state, done.state, done.is_whole) == ("started", "done", True)
    assert {event.session_id for event in events} == {"s"}


async def test_an_event_is_json() -> None:
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session("s", config=quick(), on_event=events.append) as session:
        os.kill(session.worker.pid, 9)
        await session.execute("1")
    for event in events:
        data = msgspec.json.encode(event)
        assert msgspec.json.decode(data)["event"] == type(event).__struct_config__.tag
        assert msgspec.json.decode(data, type=pyrepl3.SessionEvent) == event


async def test_an_asynchronous_handler_runs_on_the_loop_and_a_plain_one_in_a_thread() -> None:
    here = threading.current_thread()
    threads: list[threading.Thread] = []

    async def asynchronous(event: pyrepl3.SessionEvent) -> None:
        await asyncio.sleep(0)
        threads.append(threading.current_thread())

    async with pyrepl3.open_session(config=quick(), on_event=asynchronous):
        pass
    assert set(threads) == {here}
    threads.clear()
    async with pyrepl3.open_session(
        config=quick(), on_event=lambda _: threads.append(threading.current_thread())
    ):
        pass
    assert here not in threads
    assert len(threads) == 3


class Broken(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError, Broken])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_that_raises_is_told_and_nothing_else_happens(
    error: type[BaseException], is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(event: pyrepl3.SessionEvent) -> None:
        raise error("mine")

    async def asynchronous(event: pyrepl3.SessionEvent) -> None:
        raise error("mine")

    async with pyrepl3.open_session(
        "s", config=quick(), on_event=asynchronous if is_async else plain
    ) as session:
        assert (await session.execute("6 * 7")).value == 42
    told = [record for record in caplog.records if record.name == "pyrepl3.handlers"]
    assert len(told) == 3
    assert "on_event of session 's' raised" in told[0].getMessage()
    assert told[0].exc_info is not None


async def test_a_handler_that_blocks_holds_up_nothing_and_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(handlers, "MAX_WAITING", 5)
    go_on = threading.Event()
    got: list[pyrepl3.SessionEvent] = []

    def on_event(event: pyrepl3.SessionEvent) -> None:
        got.append(event)
        go_on.wait(PATIENCE)

    async with pyrepl3.open_session(
        "s", config=quick(), capabilities={"double": double}, on_event=on_event
    ) as session:
        with anyio.fail_after(PATIENCE):
            result = await session.execute("sum(double(n) for n in range(20))")
        assert result.value == 380
        assert len(got) == 1
        go_on.set()
    told = [record.getMessage() for record in caplog.records if record.name == "pyrepl3.handlers"]
    assert told[0] == "on_event of session 's' has been at SpawnEvent for 0 s; later events wait"
    assert "is slow" in told[1]
    assert any("did not get" in line for line in told[2:])
    assert isinstance(got[-1], pyrepl3.StopEvent)


async def test_a_handler_that_never_returns_does_not_keep_a_session_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_event(event: pyrepl3.SessionEvent) -> None:
        await asyncio.Event().wait()

    with anyio.fail_after(PATIENCE):
        async with pyrepl3.open_session("s", config=quick(), on_event=on_event) as session:
            await session.execute("1")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pyrepl3.handlers"]
    assert "did not end within 1 s: 2 events are dropped" in line


async def test_a_handler_may_use_its_session() -> None:
    sizes: list[int] = []
    sessions: list[pyrepl3.Session] = []
    asked = anyio.Event()

    async def on_event(event: pyrepl3.SessionEvent) -> None:
        if isinstance(event, pyrepl3.RecoveryEvent) and event.state == "done":
            sizes.append((await sessions[0].execute("len(x)")).value)
            asked.set()

    async with pyrepl3.open_session(config=quick(), on_event=on_event) as session:
        sessions.append(session)
        await session.execute("x = [1, 2, 3]")
        os.kill(session.worker.pid, 9)
        await session.execute("x")
        with anyio.fail_after(PATIENCE):
            await asked.wait()
    assert sizes == [3]


async def test_an_opening_that_fails_tells_of_its_worker() -> None:
    events: list[pyrepl3.SessionEvent] = []
    config = pyrepl3.WorkerConfig(python="/bin/false")
    with pytest.raises(pyrepl3.SpawnError):
        async with pyrepl3.open_session(config=config, on_event=events.append):
            pass
    assert {"spawn", "death"} <= set(kinds(events))


async def test_pools_and_their_sessions_both_hear() -> None:
    of_pool: list[pyrepl3.SessionEvent] = []
    of_session: list[pyrepl3.SessionEvent] = []
    async with (
        pyrepl3.WorkerPool(1, quick(), on_event=of_pool.append) as pool,
        pool.open_session("s", on_event=of_session.append) as session,
    ):
        await session.execute("1")
    assert kinds(of_session) == ["spawn", "ready", "stop"]
    assert [event for event in of_pool if event.session_id == "s"] == of_session
    spawn = of_session[0]
    assert isinstance(spawn, pyrepl3.SpawnEvent)
    assert spawn.warm


async def test_the_death_of_a_worker_that_waits_in_a_pool_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.WorkerPool(1, quick(), fork=False, on_event=events.append) as pool:
        (idle,) = pool._workers.idle
        os.kill(idle.worker.pid, 9)
        await idle.ended
        async with pool.open_session("s") as session:
            await session.execute("1")
    (death,) = (event for event in events if event.session_id != "s")
    assert isinstance(death, pyrepl3.DeathEvent)
    assert (death.session_id, death.worker, death.incarnation) == ("", idle.worker.pid, None)
    assert (death.certificate.pid, death.certificate.signal) == (idle.worker.pid, 9)
    assert msgspec.json.decode(msgspec.json.encode(death), type=pyrepl3.SessionEvent) == death
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.name == "pyrepl3.worker"
    assert (vars(record)["session"], vars(record)["worker"]) == (None, idle.worker.pid)
    assert f"worker {idle.worker.pid} that waited in a pool died: killed from outside" in record.getMessage()


def test_synchronous_sessions_and_pools_hear_too() -> None:
    events: list[pyrepl3.SessionEvent] = []
    with sync.open_session(config=quick(), on_event=events.append) as session:
        session.execute("1")
    assert kinds(events) == ["spawn", "ready", "stop"]
    events.clear()
    with sync.WorkerPool(1, quick(), on_event=events.append) as pool, pool.open_session() as session:
        session.execute("1")
    assert kinds(events) == ["spawn", "ready", "stop"]


async def test_nothing_is_made_for_a_host_call_that_is_not_listened_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announced: list[pyrepl3.SessionEvent] = []

    def announce(self: Telemetry, event: pyrepl3.SessionEvent, *_: object) -> None:
        announced.append(event)

    async with pyrepl3.open_session(config=quick(), capabilities={"double": double}) as session:
        if session._telemetry.spans is not None:
            pytest.skip("OpenTelemetry is in use in this process")
        monkeypatch.setattr(logging.getLogger("pyrepl3.calls"), "level", logging.INFO)
        monkeypatch.setattr(Telemetry, "announce", announce)
        await session.execute("double(1)")
    assert not [event for event in announced if isinstance(event, pyrepl3.CallEvent)]
