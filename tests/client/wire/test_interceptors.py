"""Interceptors: the one way to see a worker's messages."""

import asyncio
import logging
import threading
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.messages import Call, Pong, Result
from tests.helpers.scripted_sessions import ONE, opened

pytestmark = pytest.mark.anyio


async def test_an_interceptor_sees_everything_and_may_keep_it(worker: ScriptedWorker) -> None:
    seen: list[Any] = []

    def intercept(message: Any) -> bool:
        seen.append(message)
        return isinstance(message, Call)

    @worker.script("calls")
    async def calls(run: Run) -> Any:
        return await run.call("f")

    async with opened(worker, capabilities={"f": lambda: 1}) as session:
        session.interceptors.append(intercept)
        execution = session.start("calls")
        while not any(isinstance(message, Call) for message in seen):
            await session.ping()
        await execution.cancel()
    assert {Call, Pong} <= {type(message) for message in seen}
    assert all(event.__class__ is not Call for event in [event async for event in execution])


async def test_an_interceptor_is_called_on_the_sessions_loop_before_the_message_is_handled(
    worker: ScriptedWorker,
) -> None:
    where: list[object] = []

    async with opened(worker) as session:
        execution = session.start(ONE)

        def intercept(message: Any) -> None:
            if isinstance(message, Result):
                where.extend((threading.current_thread(), asyncio.get_running_loop(), execution.state.value))

        session.interceptors.append(intercept)
        await execution
    assert where == [threading.current_thread(), asyncio.get_running_loop(), "running"]


@pytest.mark.parametrize("error", [LookupError("in the bridge"), asyncio.CancelledError()])
async def test_an_interceptor_that_fails_is_logged_and_the_session_goes_on(
    worker: ScriptedWorker, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    seen: list[str] = []

    def fails(message: Any) -> bool:
        raise error

    async with opened(worker) as session:
        session.interceptors.extend((fails, lambda message: seen.append(type(message).__name__)))
        with caplog.at_level(logging.ERROR, "pyrepl3.handlers"):
            assert (await session.execute(ONE)).value == 2
        assert session.worker.incarnation == 1
    assert seen == ["Result"]
    (record,) = caplog.records
    assert record.message == "an interceptor failed on result"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_interceptors_come_and_go_while_code_runs(worker: ScriptedWorker) -> None:
    first: list[str] = []
    second: list[str] = []

    async with opened(worker) as session:

        def once(message: Any) -> None:
            first.append(type(message).__name__)
            session.interceptors.remove(once)
            session.interceptors.append(later)

        def always(message: Any) -> None:
            second.append(type(message).__name__)

        def later(message: Any) -> None:
            first.append(f"later {type(message).__name__}")

        session.interceptors.extend((once, always))
        await session.execute(ONE)
        await session.ping()
        session.interceptors.clear()
        await session.execute(ONE)
    assert first == ["Result", "later Pong"]
    assert second == ["Result", "Pong"]


async def test_the_next_worker_has_the_same_interceptors(worker: ScriptedWorker) -> None:
    seen: list[str] = []
    async with opened(worker) as session:
        interceptor: pyrepl3.Interceptor = lambda message: seen.append(type(message).__name__)  # noqa: E731
        session.interceptors.append(interceptor)
        await session.restart()
        await session.execute(ONE)
    assert seen == ["Ready", "Result"]
