"""Iterating over an execution: everything, in order, each once, and never more than memory allows."""

import asyncio

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import Output, Result
from pyrepl3_client.testing import Run, ScriptedWorker
from tests.helpers.scripted_sessions import ONE, SLEEP, opened, until_output

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def script_flood(worker: ScriptedWorker, megabytes: int) -> None:
    @worker.script("flood")
    async def flood(run: Run) -> None:
        for number in range(megabytes):
            run.print(f"{number:>8}" * (MIB // 8))


async def test_an_iteration_may_begin_when_all_is_over(worker: ScriptedWorker) -> None:
    @worker.script("prints")
    async def prints(run: Run) -> int:
        run.print("a")
        run.print("b")
        return 1

    async with opened(worker) as session:
        execution = session.start("prints")
        await execution.result()
        events = [event async for event in execution]
        assert [event.data for event in events if isinstance(event, Output)] == ["a", "b"]
        assert isinstance(events[-1], Result)
        assert [event async for event in execution] == []


async def test_an_iteration_over_silent_code_gives_its_result(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(ONE)
        await execution.result()
        (only,) = [event async for event in execution]
        assert isinstance(only, Result)


async def test_two_iterations_share_the_events(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP)
        first, second = aiter(execution), aiter(execution)
        assert isinstance(await anext(first), Output)
        rest = [asyncio.ensure_future(anext(events, None)) for events in (first, second)]
        await execution.cancel()
        given = await asyncio.gather(*rest)
        assert sorted(type(event).__name__ for event in given) == ["Error", "NoneType"]


async def test_an_iteration_ends_with_what_ended_the_worker(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP)
        events = aiter(execution)
        assert isinstance(await anext(events), Output)
        worker.process.exit(1)
        with pytest.raises(pyrepl3.WorkerDied):
            await anext(events)


async def test_a_slow_iteration_makes_the_worker_wait(worker: ScriptedWorker) -> None:
    script_flood(worker, 40)
    async with opened(worker) as session:
        execution = session.start("flood")
        events = aiter(execution)
        await anext(events)
        assert await settled_backlog(worker) > 20 * MIB
        rest = [event async for event in events]
        assert "".join(event.data for event in rest if isinstance(event, Output)).endswith("39")
        assert sum(len(event.data) for event in rest if isinstance(event, Output)) == 39 * MIB
        assert len((await execution.result()).stdout) == 40 * MIB


async def test_without_an_iteration_the_code_runs_and_the_newest_events_are_kept(
    worker: ScriptedWorker,
) -> None:
    script_flood(worker, 40)
    async with opened(worker) as session:
        execution = session.start("flood")
        assert len((await execution.result()).stdout) == 40 * MIB
        marker, *rest = [event async for event in execution]
        assert isinstance(marker, Output)
        assert "bytes of earlier output are in the result only" in marker.data
        outputs = [event for event in rest if isinstance(event, Output)]
        assert sum(len(event.data) for event in outputs) <= 8 * MIB
        assert outputs[-1].data.endswith("39")
        assert isinstance(rest[-1], Result)


async def test_an_iteration_that_is_left_lets_the_code_run_on(worker: ScriptedWorker) -> None:
    script_flood(worker, 40)
    async with opened(worker) as session:
        execution = session.start("flood")
        await until_output(execution)
        assert len((await execution.result()).stdout) == 40 * MIB


async def test_a_slow_iteration_counts_again_after_a_cancel(worker: ScriptedWorker) -> None:
    """Reading in spite of slow iterations is for the time of a cancel alone."""
    script_flood(worker, 40)
    async with opened(worker) as session:
        first = session.start(SLEEP)
        await until_output(first)
        await first.cancel()
        events = aiter(session.start("flood"))
        await anext(events)
        assert await settled_backlog(worker) > 20 * MIB
        async for _ in events:
            pass


async def settled_backlog(worker: ScriptedWorker) -> int:
    """Let the loop read as much as it wants to; return what the worker could not get rid of."""
    backlog = -1
    while worker.process.unsent_bytes != backlog:
        backlog = worker.process.unsent_bytes
        for _ in range(100):
            await asyncio.sleep(0)
    return backlog


async def test_a_slow_iteration_holds_up_neither_pings_nor_cancels(worker: ScriptedWorker) -> None:
    script_flood(worker, 20)

    @worker.script("flood, then sleep")
    async def flood_and_sleep(run: Run) -> None:
        await worker.script_for("flood")(run)
        await asyncio.Event().wait()

    async with opened(worker) as session:
        execution = session.start("flood, then sleep")
        events = aiter(execution)
        await anext(events)
        assert (await session.ping()).current_execution == execution.execution_id
        await execution.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await execution.result()
        # The iteration is still there, and still slow; that must not stop the next execution.
        assert (await session.execute(ONE)).value == 2
        rest = [event.data async for event in events if isinstance(event, Output)]
        assert len("".join(rest)) == 19 * MIB
