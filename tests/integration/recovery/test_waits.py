"""What callers wait for ends when their session does, whatever it was doing just then."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._session.replay import Replay
from tests.helpers.real_sessions import PATIENCE, quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

type Stores = Callable[[str], Path | None]


@pytest.fixture(params=["none", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "none" else tmp_path / "state.db"


async def error_of(waiting: Awaitable[Any]) -> BaseException | None:
    """Wait for something that must end; return how it failed."""
    with anyio.fail_after(PATIENCE):
        try:
            await waiting
        except Exception as error:
            return error
    return None


class HeldRecovery:
    """Stops recoveries before they bring anything back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
        self.reached = asyncio.Event()
        self.error = error
        run = Replay.run

        async def held(replay: Replay, worker: Any) -> None:
            self.reached.set()
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
            await run(replay, worker)

        monkeypatch.setattr(Replay, "run", held)


async def test_a_handler_that_is_cancelled_from_inside_holds_no_outcome_back(store: Path | None) -> None:
    async def handler(output: pyrepl3.Output) -> None:
        raise asyncio.CancelledError

    def plain(output: pyrepl3.Output) -> None:
        raise asyncio.CancelledError

    async with pyrepl3.open_session(store=store, config=quick()) as session:
        for on_output in (handler, plain):
            executions = [session.start(f"print({n}); {n}", on_output=on_output) for n in range(3)]
            for execution in executions:
                error = await error_of(execution.result())
                assert type(error).__name__ == "CancelledError", error
                assert isinstance(error, Exception)


async def test_a_restart_that_is_cancelled_in_a_recovery_leaves_nobody_waiting(
    store: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pyrepl3.open_session(store=store, config=quick()) as session:
        await session.execute("x = 1")
        held = HeldRecovery(monkeypatch)
        os.kill(session.worker.pid, signal.SIGKILL)
        await held.reached.wait()
        waits = [asyncio.ensure_future(w) for w in (session.execute("x"), session.ping())]
        await asyncio.sleep(0)
        restarting = asyncio.ensure_future(session.restart())
        await asyncio.sleep(0)
        restarting.cancel()
        for wait in (*waits, session.execute("x")):
            error = await error_of(wait)
            assert isinstance(error, pyrepl3.WorkerDied), error
        monkeypatch.undo()
        await session.restart()
        assert (await session.execute("'x' in globals()")).value is False


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()])
async def test_a_recovery_that_ends_with_what_nobody_expects_leaves_nobody_waiting(
    store: Path | None, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with pyrepl3.open_session(store=store, config=quick()) as session:
        await session.execute("x = 1")
        HeldRecovery(monkeypatch, error)
        running = session.start("import os; os.system(f'kill -9 {os.getpid()}')")
        for wait in (running.result(), session.execute("x"), session.checkpoint()):
            ended = await error_of(wait)
            assert isinstance(ended, pyrepl3.WorkerDied), ended
            assert type(error).__name__ in str(ended)


async def test_a_restore_that_reads_its_blobs_while_the_session_closes_ends(store: Path | None) -> None:
    async with pyrepl3.open_session(store=store, config=quick()) as session:
        await session.execute("x = 1")
        await session.checkpoint("here")
        record = session._supervisor.record  # pyright: ignore[reportPrivateUsage] - the moment has no other name
        reached, go_on = asyncio.Event(), asyncio.Event()
        read = record.blobs

        async def slow(digests: Any) -> dict[str, bytes]:
            reached.set()
            await go_on.wait()
            return {} if session.state is pyrepl3.SessionState.CLOSED else await read(digests)

        record.blobs = slow  # pyright: ignore[reportAttributeAccessIssue]
        restoring = asyncio.ensure_future(session.restore("here"))
        await reached.wait()
        await session.close()
        go_on.set()
        error = await error_of(restoring)
        assert isinstance(error, pyrepl3.SessionClosed), error


async def test_a_worker_that_dies_while_its_recovery_reads_the_record_is_replaced(store: Path | None) -> None:
    async with pyrepl3.open_session(store=store, config=quick(), recovery="replay") as session:
        await session.execute("x = 1")
        supervisor = session._supervisor  # pyright: ignore[reportPrivateUsage] - the moment has no other name
        record = supervisor.record
        reached, go_on = asyncio.Event(), asyncio.Event()
        read = record.calls

        async def slow(execution_id: str) -> Any:
            reached.set()
            await go_on.wait()
            return await read(execution_id)

        record.calls = slow  # pyright: ignore[reportAttributeAccessIssue]
        os.kill(session.worker.pid, signal.SIGKILL)
        await reached.wait()
        second = supervisor.require_worker()
        os.kill(second.pid, signal.SIGKILL)
        await asyncio.wait([second.connection.exited])
        go_on.set()
        with anyio.fail_after(PATIENCE):
            assert (await session.execute("x")).value == 1
        assert session.worker.pid != second.pid
