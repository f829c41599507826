"""Entering and leaving: in whatever way, from whatever task, nothing stays behind.

(The leak check of every test looks for processes, threads and fds.)
"""

import asyncio
import threading

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SessionState
from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.messages import Execute, Hello, Ready, Shutdown
from tests.helpers.scripted_sessions import ONE, SLEEP, STUBBORN, brief, opened, until_output

pytestmark = pytest.mark.anyio


async def test_a_session_may_be_entered_and_left_in_different_tasks(worker: ScriptedWorker) -> None:
    context = opened(worker)
    session = await asyncio.create_task(context.__aenter__())
    assert (await asyncio.create_task(session.execute(ONE))).value == 2
    await asyncio.create_task(context.__aexit__(None, None, None))
    assert session.state is SessionState.CLOSED
    assert worker.process.ended


async def test_a_body_that_raises_gets_its_error_and_a_closed_session(worker: ScriptedWorker) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with opened(worker):
            raise KeyError("mine")
    assert worker.process.reap().exit_code == 0


async def test_a_cancelled_body_closes_its_session(worker: ScriptedWorker) -> None:
    sessions: list[pyrepl3.Session] = []

    async def body() -> None:
        async with opened(worker) as session:
            sessions.append(session)
            await session.execute(SLEEP)

    task = asyncio.create_task(body())
    await worker.wait_for(Execute)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sessions[0].state is SessionState.CLOSED


async def test_a_cancelled_scope_of_anyio_closes_its_session(worker: ScriptedWorker) -> None:
    with anyio.move_on_after(0.01):
        async with opened(worker, config=brief()) as session:
            await session.execute(STUBBORN)
    assert worker.process.ended


async def test_closing_goes_on_when_it_is_cancelled(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Shutdown)
    async with opened(worker, config=brief()) as session:
        worker.process.ignores_eof = True
        closing = asyncio.create_task(session.close())
        await worker.wait_for(Shutdown)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert session.state is SessionState.CLOSED
        assert worker.process.reap().signal == 9


async def test_closing_twice_and_at_once(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        await asyncio.gather(session.close(), session.close())
        await session.close()
    assert sum(isinstance(message, Shutdown) for message in worker.received) == 1


async def test_a_worker_is_asked_before_it_is_killed(worker: ScriptedWorker) -> None:
    async with opened(worker):
        pass
    assert worker.process.reap().exit_code == 0
    assert (await worker.wait_for(Shutdown)).grace == 2.0


async def test_a_busy_worker_is_rung_so_that_it_hears_of_the_end(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        session.start(SLEEP)
        await worker.wait_for(Execute)
        assert worker.wakeup_signals == 0
    assert worker.wakeup_signals == 1


async def test_nothing_works_after_the_end_and_everything_says_so(worker: ScriptedWorker) -> None:
    async with opened(worker, session_id="s") as session:
        execution = session.start(SLEEP)
        await until_output(execution)
    for call in (session.ping, session.stats, session.restart, session.checkpoint, session.variables):
        with pytest.raises(pyrepl3.SessionClosed, match="session 's' is closed"):
            await call()
    with pytest.raises(pyrepl3.SessionClosed):
        await execution.result()
    await execution.cancel()
    assert await session.cancel() is False
    assert repr(session).startswith("<Session 's' closed")
    assert session.worker.incarnation == 1


async def test_a_start_that_is_cancelled_leaves_no_worker(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Hello)
    opening = asyncio.create_task(opened(worker).__aenter__())
    await worker.wait_for(Hello)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert worker.process.ended


async def test_a_worker_of_another_protocol_is_refused(worker: ScriptedWorker) -> None:
    worker.ready = ready_of(protocol=99)
    with pytest.raises(pyrepl3.SpawnError, match="it speaks protocol 99, and we speak 2"):
        async with opened(worker):
            pass


def ready_of(protocol: int) -> Ready:
    return Ready(protocol=protocol, pid=1, python="3", max_frame_bytes=1 << 26)


async def test_host_functions_are_cancelled_and_waited_for(worker: ScriptedWorker) -> None:
    @worker.script("calls")
    async def calls(run: Run) -> None:
        await run.call("f")

    order: list[str] = []
    started = asyncio.Event()

    async def f() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("cleaned up")

    async with opened(worker, capabilities={"f": f}) as session:
        session.start("calls")
        await started.wait()
    order.append("left")
    assert order == ["cleaned up", "left"]


async def test_a_thread_is_waited_for(worker: ScriptedWorker) -> None:
    @worker.script("calls")
    async def calls(run: Run) -> None:
        await run.call("f")

    loop = asyncio.get_running_loop()
    started = asyncio.Event()
    go_on = threading.Event()
    order: list[str] = []

    def f() -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait()
        order.append("returned")

    async with opened(worker, capabilities={"f": f}) as session:
        session.start("calls")
        await started.wait()
        loop.call_later(0.05, go_on.set)
    order.append("left")
    assert order == ["returned", "left"]


async def test_a_thread_that_does_not_return_is_named(worker: ScriptedWorker) -> None:
    @worker.script("calls")
    async def calls(run: Run) -> None:
        await run.call("f")

    loop = asyncio.get_running_loop()
    started = asyncio.Event()
    go_on = threading.Event()

    def f() -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait()

    context = opened(worker, config=brief(), session_id="s", capabilities={"f": f})
    session = await context.__aenter__()
    session.start("calls")
    await started.wait()
    with pytest.warns(ResourceWarning, match="session 's' block their threads after its end: capability 'f'"):
        await context.__aexit__(None, None, None)
    go_on.set()


async def test_a_host_function_that_will_not_be_cancelled_is_named(worker: ScriptedWorker) -> None:
    @worker.script("calls")
    async def calls(run: Run) -> None:
        await run.call("f")

    started, go_on = asyncio.Event(), asyncio.Event()

    async def f() -> None:
        started.set()
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    context = opened(worker, config=brief(), capabilities={"f": f})
    session = await context.__aenter__()
    session.start("calls")
    await started.wait()
    with pytest.warns(ResourceWarning, match="go on after their cancellation: capability 'f'"):
        await context.__aexit__(None, None, None)
    go_on.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_call_that_comes_during_the_end_is_cancelled_at_its_first_wait() -> None:
    owner = TaskOwner("s")
    await owner.close(1.0)
    cancelled: list[bool] = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    task = owner.start(late(), "late")
    await asyncio.wait([task])
    assert cancelled == [True]


async def test_many_sessions_at_once() -> None:
    async def one(number: int) -> int:
        worker = ScriptedWorker()

        @worker.script("number")
        async def script(run: Run) -> int:
            await asyncio.sleep(0)
            return number

        async with opened(worker) as session:
            values = [(await session.execute("number")).value for _ in range(20)]
        (value,) = set(values)
        return value

    assert await asyncio.gather(*(one(number) for number in range(50))) == list(range(50))


async def test_an_abandoned_session_is_closed_with_its_loop(worker: ScriptedWorker) -> None:
    """Entered by hand and never left, as in a notebook: the end of the loop ends the worker."""

    def run() -> None:
        async def main() -> None:
            inner = ScriptedWorker()
            lives.append(inner)
            await opened(inner).__aenter__()

        asyncio.run(main())

    lives: list[ScriptedWorker] = []

    def in_a_thread() -> None:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    with pytest.warns(ResourceWarning, match="was never closed; its event loop ends"):
        in_a_thread()
    assert lives[0].process.ended


async def test_an_empty_session_id_is_refused_and_none_made_up(worker: ScriptedWorker) -> None:
    with pytest.raises(ValueError, match="session_id"):
        async with pyrepl3.open_session(""):
            raise AssertionError
    async with opened(worker) as session:
        assert session.session_id
