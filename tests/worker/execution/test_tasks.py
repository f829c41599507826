"""Tasks have an owner and a place, and the loop can be lent out."""

import asyncio

import pytest

from pyrepl3_worker.errors import AsyncContextError, LimitExceeded
from pyrepl3_worker.execution.event_loop import EventLoopCoordinator
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution, current_path
from pyrepl3_worker.execution.tasks import CoroutineManager

pytestmark = pytest.mark.anyio


async def test_a_coroutine_queued_where_no_loop_runs_is_run_when_the_queue_is_flushed() -> None:
    """Its result comes back in its place, and so does what another one raised."""
    loop = asyncio.get_running_loop()
    coordinator = EventLoopCoordinator(loop, CoroutineManager(10))

    async def fails() -> None:
        raise ValueError("no")

    assert await asyncio.to_thread(coordinator.queue_for_async, asyncio.sleep(0, "done")) is None
    assert await asyncio.to_thread(coordinator.queue_for_async, fails()) is None
    assert await asyncio.to_thread(coordinator.ensure_event_loop) is loop
    result, error = await coordinator.flush_queue()
    assert result == "done"
    assert isinstance(error, ValueError)
    assert await coordinator.flush_queue() == []


async def test_a_coroutine_queued_where_a_loop_runs_is_a_task_at_once() -> None:
    """There is nothing to wait for."""
    coordinator = EventLoopCoordinator(asyncio.get_running_loop(), CoroutineManager(10))
    task = coordinator.queue_for_async(asyncio.sleep(0, 7))
    assert task is not None
    assert await task == 7


def test_a_closed_loop_is_not_lent() -> None:
    """The error says so."""
    loop = asyncio.new_event_loop()
    coordinator = EventLoopCoordinator(loop, CoroutineManager(10))
    loop.close()
    with pytest.raises(AsyncContextError, match="closed"):
        coordinator.ensure_event_loop()


async def test_tasks_are_counted_limited_and_cancelled() -> None:
    """One too many is refused, and closed; the rest go at the end."""
    manager = CoroutineManager(2)
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(manager.task_factory)
    token = current_path.set(CallPath(WorkerExecution("e", ""), ""))
    try:
        tasks = [loop.create_task(asyncio.sleep(60)) for _ in range(2)]
        with pytest.raises(LimitExceeded, match="max_coroutines=2"):
            tasks.append(loop.create_task(asyncio.sleep(60)))
        assert (len(manager.tasks), manager.created) == (2, 2)
        assert manager.cleanup() == 2
        done = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        current_path.reset(token)
        loop.set_task_factory(before)
    assert [type(outcome) for outcome in done] == [asyncio.CancelledError] * 2
    assert manager.cleanup() == 0


async def test_a_task_knows_its_place() -> None:
    """The second task of the main path is `2.`, and its own first one `2.1.`."""
    manager = CoroutineManager(10)
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(manager.task_factory)
    token = current_path.set(CallPath(WorkerExecution("e", ""), ""))

    async def place() -> str:
        path = current_path.get()
        assert path is not None
        return path.prefix

    async def inner() -> str:
        return await loop.create_task(place())

    try:
        places = [await loop.create_task(place()), await loop.create_task(inner())]
    finally:
        current_path.reset(token)
        loop.set_task_factory(before)
    assert places == ["1.", "2.1."]
