"""`open_session` is awaited or entered, once; whose a session is, is checked."""

import asyncio
import threading

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from pyrepl3_client.testing import ScriptedWorker, open_session
from pyrepl3_schemas.messages import Hello

pytestmark = pytest.mark.anyio


async def test_a_session_is_awaited_and_closed() -> None:
    session = await open_session(ScriptedWorker())
    assert session.state.value == "ready"
    await asyncio.create_task(session.close())
    assert session.state.value == "closed"
    await session.close()


async def test_a_session_is_a_context_too() -> None:
    async with await open_session(ScriptedWorker()) as session:
        pass
    assert session.state.value == "closed"


async def test_an_opener_opens_once() -> None:
    opener = open_session(ScriptedWorker())
    async with opener:
        with pytest.raises(pyrepl3.PyRepl3Error, match="call open_session"):
            await opener
    with pytest.raises(pyrepl3.PyRepl3Error, match="call open_session"):
        async with opener:
            pass


async def test_an_opener_that_is_not_used_starts_nothing() -> None:
    worker = ScriptedWorker()
    with pytest.warns(RuntimeWarning, match="never awaited or entered"):
        open_session(worker)
    assert worker.processes == []


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="recovery must be one of"):
        pyrepl3.open_session(recovery="never")  # pyright: ignore[reportArgumentType]


async def test_a_session_of_another_loop_says_whose_it_is() -> None:
    errors: list[Exception] = []

    def elsewhere() -> None:
        for call in (session.ping, session.cancel, session.checkpoint, session.close):
            with pytest.raises(
                pyrepl3.PyRepl3Error, match="belongs to the event loop of thread 'MainThread'"
            ) as caught:
                asyncio.run(call())  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
            errors.append(caught.value)
        with pytest.raises(pyrepl3.PyRepl3Error, match="on no event loop in thread 'other'"):
            session.start("1")

    async with open_session(ScriptedWorker()) as session:
        thread = threading.Thread(target=elsewhere, name="other")
        thread.start()
        while thread.is_alive():  # noqa: ASYNC110 - a thread has no event
            await asyncio.sleep(0.01)
    assert len(errors) == 4


def test_any_thread_may_use_a_sync_session() -> None:
    with sync.open_session() as session:
        session.execute("n = 0")

        def count() -> None:
            for _ in range(20):
                session.execute("n += 1")

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert session.execute("n").value == 80


def test_closing_ends_the_calls_of_other_threads() -> None:
    session = sync.open_session()
    running = session.start("import time\nprint('begun')\nwhile True: time.sleep(0.1)")
    next(iter(running))
    ends: list[type[BaseException]] = []

    def wait() -> None:
        try:
            running.result()
        except pyrepl3.PyRepl3Error as error:
            ends.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    closing = [threading.Thread(target=session.close) for _ in range(2)]
    for thread in closing:
        thread.start()
    for thread in (*threads, *closing):
        thread.join(30)
        assert not thread.is_alive()
    assert ends == [pyrepl3.SessionClosed] * 3
    with pytest.raises(pyrepl3.SessionClosed):
        session.execute("1")
    session.close()


async def test_a_first_worker_that_is_killed_before_it_is_ready_is_replaced() -> None:
    worker = ScriptedWorker()
    worker.unanswered.add(Hello)

    async def kill_the_first() -> None:
        await worker.wait_for(Hello)
        worker.unanswered.clear()
        worker.process.exit(signal=9)

    killing = asyncio.create_task(kill_the_first())
    async with open_session(worker) as session:
        await killing
        assert session.worker.incarnation == 2
        assert len(worker.processes) == 2
