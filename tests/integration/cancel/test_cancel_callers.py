"""Executions that are stopped because their caller stops waiting, or because their timeout passes."""

import asyncio

import anyio
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import PATIENCE, quick, value

pytestmark = pytest.mark.anyio


async def test_cancelling_the_awaiting_task_cancels_the_execution(shared: pyrepl3.Session) -> None:
    inside = anyio.Event()
    task = asyncio.create_task(
        shared.execute(
            "how = None\ntry:\n    print('ready')\n    while True: abs(0)\n"
            "except BaseException as e:\n    how = type(e).__name__\n    raise",
            on_output=lambda _: inside.set(),
        )
    )
    with anyio.fail_after(PATIENCE):
        await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await value(shared, "how") == "CancelledError"


async def test_a_timeout_around_execute_cancels_the_execution(shared: pyrepl3.Session) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await shared.execute(
                "import time\nstopped = False\ntry:\n    time.sleep(60)\nfinally: stopped = True"
            )
    assert await value(shared, "stopped") is True


async def test_a_cancel_scope_around_execute_cancels_the_execution(shared: pyrepl3.Session) -> None:
    with anyio.move_on_after(0.1) as scope:
        await shared.execute(
            "import time\nstopped2 = False\ntry:\n    time.sleep(60)\nfinally: stopped2 = True"
        )
    assert scope.cancelled_caught
    assert await value(shared, "stopped2") is True


async def test_execution_timeout_is_a_timeout_error(shared: pyrepl3.Session) -> None:
    with pytest.raises(TimeoutError) as caught:
        await shared.execute("while True: pass", timeout=0.05)
    assert isinstance(caught.value, pyrepl3.ExecutionTimeout)
    with pytest.raises(pyrepl3.ExecutionTimeout):
        await shared.execute("import asyncio\nawait asyncio.sleep(60)", timeout=0.05)


async def test_the_sessions_own_time_limit(shared: pyrepl3.Session) -> None:
    async with pyrepl3.open_session(config=quick(max_execution_time=0.1)) as limited:
        with pytest.raises(pyrepl3.ExecutionTimeout):
            await limited.execute("while True: pass")
        assert (await limited.execute("import time; time.sleep(0.15); 'longer'", timeout=5)).value == "longer"


async def test_a_timeout_that_is_not_reached_leaves_no_trace(shared: pyrepl3.Session) -> None:
    for _ in range(20):
        await shared.execute("pass", timeout=0.02)
    assert await value(shared, "sum(range(2_000_000)) > 0") is True
