"""Real Resonate on the store, end to end."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from resonate.context import Context
from resonate.error import ResonateError
from resonate.resonate import Resonate
from resonate.retry import Never
from resonate.types import Value

from pyrepl3_client.durable.sqlite import SqliteConnection
from tests.helpers.sqlite_store import Clock, Watched

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def resonate_on(store: SqliteConnection) -> AsyncGenerator[Resonate]:
    resonate = Resonate(network=store, retry_policy=Never(), subscription_refresh_secs=0, env={})
    try:
        yield resonate
    finally:
        await resonate.stop()


@pytest.fixture(params=[":memory:", "state.db"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param if request.param == ":memory:" else str(tmp_path / request.param)


class Workflow:
    """A durable function that waits for a promise which somebody else settles."""

    def __init__(self) -> None:
        self.runs = 0
        self.created: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, ctx: Context, start: int) -> int:
        self.runs += 1
        promise = ctx.promise()
        promise_id = await promise.id()
        if not self.created.done():
            self.created.set_result(promise_id)
        answer: Any = await promise
        return start + int(answer["value"])


async def test_a_durable_function_awaits_a_promise_that_is_settled_from_outside(path: str) -> None:
    async with await SqliteConnection.open(path) as store, resonate_on(store) as resonate:
        workflow = Workflow()
        resonate.register(workflow, name="workflow")
        handle: Any = resonate.run("s.1", "workflow", 40)
        await resonate.promises.resolve(await workflow.created, Value(data={"value": 2}))
        assert await handle.result() == 42
        assert workflow.runs == 2  # once to the promise, and once more when that had settled
        again: Any = resonate.run("s.1", "workflow", 40)
        assert await again.result() == 42
        assert workflow.runs == 2


async def test_a_failure_is_an_outcome_too(path: str) -> None:
    async def fails(ctx: Context) -> None:
        raise ValueError("as it should")

    async with await SqliteConnection.open(path) as store, resonate_on(store) as resonate:
        resonate.register(fails)
        handle: Any = resonate.run("s.1", "fails")
        with pytest.raises(ValueError, match="as it should"):
            await handle.result()


async def test_children_sleeps_and_remote_calls(path: str) -> None:
    """The other things that a durable function may do, all in one."""

    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    async def parent(ctx: Context) -> int:
        local: Any = await ctx.run(double, 10)
        remote: Any = await ctx.rpc("double", 11)
        return local + remote

    async with await SqliteConnection.open(path) as store, resonate_on(store) as resonate:
        resonate.register(double)
        resonate.register(parent)
        handle: Any = resonate.run("s.1", "parent")
        assert await handle.result() == 42


async def test_a_durable_sleep_ends_when_its_time_has_come() -> None:
    clock = Clock()

    async def sleeps(ctx: Context) -> str:
        await ctx.sleep(timedelta(hours=1))
        return "awake"

    async with await Watched.open(":memory:", clock=clock) as store:
        resonate = Resonate(network=store, clock=clock, subscription_refresh_secs=0, env={})
        resonate.register(sleeps)
        handle: Any = resonate.run("s.1", "sleeps")
        await handle.id()
        await store.answered("task.suspend").wait()
        clock.advance(3_600_000)
        store.tick()
        assert await handle.result() == "awake"
        await resonate.stop()


async def test_a_suspended_function_goes_on_after_its_process_and_file_were_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    async with await Watched.open(path) as store, resonate_on(store) as resonate:
        workflow = Workflow()
        resonate.register(workflow, name="workflow")
        resonate.run("s.1", "workflow", 40)
        promise_id = await workflow.created
        await store.answered("task.suspend").wait()
    async with await SqliteConnection.open(path) as store, resonate_on(store) as resonate:
        workflow = Workflow()
        resonate.register(workflow, name="workflow")
        handle = await resonate.get("s.1")
        await resonate.promises.resolve(promise_id, Value(data={"value": 2}))
        assert await handle.result() == 42
        assert workflow.runs == 1


CHILD = """
import asyncio, sys
from resonate.resonate import Resonate
from pyrepl3_client.durable.sqlite import SqliteConnection

async def work(ctx):
    print("running", flush=True)
    await asyncio.Event().wait()

async def main():
    store = await SqliteConnection.open(sys.argv[1])
    resonate = Resonate(network=store, env={})
    resonate.register(work)
    resonate.run("s.1", "work")
    await asyncio.Event().wait()

asyncio.run(main())
"""


def run_until_killed(path: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        child.kill()


async def test_a_killed_parents_execution_is_taken_over_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    run_until_killed(path)

    async def work(ctx: Context) -> str:
        return "done"

    async with await SqliteConnection.open(path) as store, resonate_on(store) as resonate:
        resonate.register(work)
        handle: Any = resonate.run("s.1", "work")  # the dead one holds the task: this is no more than a look
        await handle.id()
        await store.reclaim("s.")
        assert await handle.result() == "done"


async def test_a_busy_store_is_never_an_outcome(tmp_path: Path) -> None:
    """The function's own settlement meets a locked file; its promise stays pending, the task is retried."""
    path = str(tmp_path / "state.db")
    runs = 0

    async def instant(_seconds: float) -> None:
        await asyncio.sleep(0)

    async with await Watched.open(path, busy_timeout=0.01, sleeper=instant) as store:
        other = sqlite3.connect(path, isolation_level=None)

        async def work(ctx: Context) -> str:
            nonlocal runs
            runs += 1
            if runs == 1:
                other.execute("BEGIN IMMEDIATE")
            return "done"

        async with resonate_on(store) as resonate:
            resonate.register(work)
            handle: Any = resonate.run("s.1", "work")
            await handle.id()
            await store.answered("task.release").wait()
            other.execute("ROLLBACK")
            assert (await resonate.promises.get("s.1")).state == "pending"
            await store.reclaim("s.")
            assert await (await resonate.get("s.1")).result() == "done"
        other.close()
    assert runs == 2


async def test_closing_leaves_no_task_and_a_single_file(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with await SqliteConnection.open(str(tmp_path / "state.db")) as store:
        async with resonate_on(store) as resonate:
            await resonate.promises.create("a", 1 << 60, Value(), {})
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert os.listdir(tmp_path) == ["state.db"]


async def test_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with await SqliteConnection.open(":memory:") as store, resonate_on(store) as resonate:
        await resonate.promises.create("a", 1 << 60, Value(), {})
        assert not os.listdir(tmp_path)
        with pytest.raises(ResonateError):
            await resonate.promises.get("b")
    assert not os.listdir(tmp_path)
