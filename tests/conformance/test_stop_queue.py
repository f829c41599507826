"""What is queued behind an execution that fails, with `on_error="stop_queue"`: errors, cancels, deaths, recoveries."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run, seen
from tests.helpers.tables import check_rows

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(scope="module")
async def editor() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick()) as session:
        yield session


async def outcomes(executions: list[pyrepl3.Execution]) -> list[str]:
    found: list[str] = []
    for execution in executions:
        result = await execution
        found.append(result.stdout.strip() if result.error is None else result.error.kind)
    return found


def queue(session: pyrepl3.Session, first: str, *, on_error: Any = "stop_queue") -> list[pyrepl3.Execution]:
    executions = [session.start(first, on_error=on_error, check=False)]
    return [*executions, *(session.start(f"print('ran {i}')", check=False) for i in range(2))]


QUEUES: list[tuple[str, str, str, list[str]]] = [
    ("an error", "1 / 0", "stop_queue", ["exception", "cancelled", "cancelled"]),
    ("a SyntaxError", "x = = 1", "stop_queue", ["compilation", "cancelled", "cancelled"]),
    ("in a coroutine", "import asyncio\nawait asyncio.sleep(0.01)\n1 / 0", "stop_queue", ["exception", "cancelled", "cancelled"]),
    ("no error", "print('fine')", "stop_queue", ["fine", "ran 0", "ran 1"]),
    ("without being asked", "1 / 0", "continue", ["exception", "ran 0", "ran 1"]),
]  # fmt: skip


async def test_what_is_queued_behind_a_failed_execution(editor: pyrepl3.Session) -> None:
    async def check(code: str, on_error: str, expected: list[str]) -> None:
        assert await outcomes(queue(editor, code, on_error=on_error)) == expected

    await check_rows(QUEUES, check)


@pytest.mark.parametrize("running", [False, True])
async def test_a_cancel_during_a_recovery_stops_the_queue(running: bool) -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await run(session, "kept = 1")
        pid = session.worker.pid
        assert pid is not None
        executions = queue(session, "import time; print('began'); time.sleep(60)") if running else []
        if running:
            await seen(executions[0], "began\n")
        os.kill(pid, signal.SIGKILL)
        while session.state is pyrepl3.SessionState.READY:  # noqa: ASYNC110 - nothing tells of it earlier
            await asyncio.sleep(0)
        executions = executions or queue(session, "1")
        await executions[0].cancel("interrupt")
        assert await outcomes(executions) == ["cancelled"] * 3
        assert (await run(session, "kept")).value == 1


async def test_an_execution_that_is_not_run_says_why(editor: pyrepl3.Session) -> None:
    failing, stopped, _ = queue(editor, "1 / 0")
    await failing
    error = (await stopped).error
    assert error is not None
    assert error.message == (
        f"execution {stopped.execution_id!r} was not run: {failing.execution_id!r}, which it was queued "
        'behind with on_error="stop_queue", has failed (ZeroDivisionError: division by zero)'
    )
    assert (await run(editor, "print('later')")).stdout == "later\n"


async def test_a_cancel_stops_the_queue_too(editor: pyrepl3.Session) -> None:
    executions = queue(editor, "print('ready')\nwhile True: pass")
    async for event in executions[0]:
        if isinstance(event, pyrepl3.Output):
            break
    await executions[0].cancel()
    assert await outcomes(executions) == ["cancelled"] * 3


async def test_a_death_stops_the_queue_too() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        executions = queue(session, "import os; os._exit(3)")
        assert await outcomes(executions) == ["died", "cancelled", "cancelled"]
        assert (await run(session, "print('later')")).stdout == "later\n"


async def test_two_that_stop_the_queue(editor: pyrepl3.Session) -> None:
    first, second = (
        editor.start(code, on_error="stop_queue", check=False) for code in ("print('a')", "1 / 0")
    )
    last = editor.start("print('b')", check=False)
    assert await outcomes([first, second, last]) == ["a", "exception", "cancelled"]


async def test_a_session_with_a_store_stops_its_queue(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'store.db'}"
    async with pyrepl3.open_session("kept", store=store, config=quick()) as session:
        executions = queue(session, "1 / 0")
        assert await outcomes(executions) == ["exception", "cancelled", "cancelled"]
        ids = [execution.execution_id for execution in executions]
    async with pyrepl3.open_session("kept", store=store, config=quick()) as session:
        again = await session.execute("print('ran 0')", execution_id=ids[1], check=False)
        assert again.error is not None
        assert again.replayed
        assert "was not run" in again.error.message
