"""The facade without async: the same names, and Ctrl-C."""

import asyncio
import inspect
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import Output, Result, sync
from pyrepl3_client._concurrency.loop_thread import LoopThread
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_client.testing import open_session as open_scripted
from pyrepl3_schemas.messages import Cancel, Execute
from tests.helpers.scripted_sessions import ONE, SLEEP, SWALLOW


@contextmanager
def opened(
    worker: ScriptedWorker,
    on_output: pyrepl3.OutputHandler | None = None,
    config: pyrepl3.WorkerConfig | None = None,
) -> Generator[sync.Session]:
    """Open a session with a scripted worker, without async."""
    opener = open_scripted(worker, config=config or pyrepl3.WorkerConfig(), on_output=on_output)
    with LoopThread("test") as thread, sync.Session(thread.run(opener.__aenter__), thread) as session:
        yield session


@contextmanager
def interrupted_when(worker: ScriptedWorker, *kinds: type[Any]) -> Generator[None]:
    """Press Ctrl-C for each message of these types that comes, in that order."""
    note = worker.note
    left = list(kinds)

    def noting(message: Any) -> None:
        note(message)
        if left and isinstance(message, left[0]):
            del left[0]
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    worker.note = noting
    try:
        yield
    finally:
        worker.note = note
    assert not left


@pytest.mark.parametrize("name", ["Session", "SessionFiles", "Execution", "WorkerPool"])
def test_the_mirror_shows_everything(name: str) -> None:
    def face(of: type[Any]) -> dict[str, list[tuple[object, ...]]]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
            for name, member in inspect.getmembers(of, inspect.isfunction)
            if not name.startswith("_")
        }

    assert face(getattr(sync, name)) == face(getattr(pyrepl3, name))


def test_a_handle_shows_only_what_is_the_users() -> None:
    shown = {"attempts", "cancel", "code", "execution_id", "output", "result", "state"}
    for handle in (pyrepl3.Execution, sync.Execution):
        assert {name for name in dir(handle) if not name.startswith("_")} == shown


def test_the_ways_in_take_the_same() -> None:
    ours, theirs = inspect.signature(sync.open_session), inspect.signature(pyrepl3.open_session)
    assert ours.parameters == theirs.parameters


def test_a_session_without_async(worker: ScriptedWorker) -> None:
    seen: list[str] = []
    with opened(worker, on_output=lambda o: seen.append(o.data)) as session:
        assert session.execute(ONE).value == 2
        execution = session.start(SLEEP)
        events = iter(execution)
        assert isinstance(next(events), Output)
        assert session.ping().current_execution == execution.execution_id
        execution.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled):
            execution.result()
        (only,) = list(session.start(ONE))
        assert isinstance(only, Result)
        session.restart()
        assert session.worker.incarnation == 2
        assert session.state.value == "ready"
    assert seen == ["asleep\n"]
    assert worker.process.ended


def test_nothing_works_after_the_end(worker: ScriptedWorker) -> None:
    with opened(worker) as session:
        pass
    with pytest.raises(pyrepl3.SessionClosed):
        session.execute(ONE)


def test_a_body_that_raises_ends_its_session(worker: ScriptedWorker) -> None:
    with pytest.raises(KeyError), opened(worker):
        raise KeyError
    assert worker.process.ended


def test_a_handler_that_calls_its_session_is_told_why_it_cannot(worker: ScriptedWorker) -> None:
    sessions: list[sync.Session] = []
    with opened(worker, on_output=lambda o: sessions[0].ping() and None) as session:
        sessions.append(session)
        execution = session.start(SLEEP)
        next(iter(execution))
        execution.cancel()
        with pytest.raises(RuntimeError, match="a handler cannot call its own session"):
            execution.result()


def test_a_host_function_that_runs_code_in_its_own_session_is_told_why_it_cannot(
    worker: ScriptedWorker,
) -> None:
    @worker.script("calls f")
    async def calls(run: Run) -> Any:
        return await run.call("f")

    def f() -> str:
        with pytest.raises(pyrepl3.CapabilityError) as refused:
            sessions[0].execute(ONE, execution_id="inner")
        return str(refused.value)

    sessions: list[sync.Session] = []
    opener = open_scripted(worker, capabilities={"f": f})
    with LoopThread("test") as thread, sync.Session(thread.run(opener.__aenter__), thread) as session:
        sessions.append(session)
        text = sessions[0].execute("calls f", execution_id="outer").value
        assert "execution 'inner' would wait for itself" in text
        assert "'outer:f:1'" in text
        assert sessions[0].execute(ONE).value == 2


def test_a_handler_that_would_end_the_program_fails_its_execution(worker: ScriptedWorker) -> None:
    def leaves(output: pyrepl3.Output) -> None:
        raise SystemExit("enough")

    @worker.script("prints")
    async def prints(run: Run) -> None:
        run.print("text")

    with opened(worker, on_output=leaves) as session:
        with pytest.raises(Exception, match="enough") as failure:
            session.execute("prints")
        assert type(failure.value).__name__ == "SystemExit"
        assert session.execute(ONE).value == 2


def test_ctrl_c_cancels_the_execution_and_is_raised(worker: ScriptedWorker) -> None:
    with opened(worker) as session:
        with interrupted_when(worker, Execute), pytest.raises(KeyboardInterrupt):
            session.execute(SLEEP)
        assert sum(isinstance(message, Cancel) for message in worker.received) == 1
        assert session.execute(ONE).value == 2


def test_ctrl_c_again_is_more_urgent(worker: ScriptedWorker) -> None:
    with opened(worker, config=pyrepl3.WorkerConfig(cancel_grace=600)) as session:
        with interrupted_when(worker, Execute, Cancel), pytest.raises(KeyboardInterrupt):
            session.execute(SWALLOW)
        assert sum(isinstance(message, Cancel) for message in worker.received) == 2
        assert session.execute(ONE).value == 2


@pytest.mark.parametrize("scheduled", [True, False])
def test_ctrl_c_just_before_the_wait_cancels_too(scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It strikes while the loop's thread is told what to do: just after, or just before."""

    async def work() -> None:
        await asyncio.Event().wait()

    with LoopThread("test") as thread:
        loop = thread.call(asyncio.get_running_loop)
        tell = loop.call_soon_threadsafe

        def interrupted(callback: Callable[[], None]) -> None:
            monkeypatch.setattr(loop, "call_soon_threadsafe", tell)
            if scheduled:
                tell(callback)
            raise KeyboardInterrupt

        monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thread.run(work)
        assert len(thread.call(asyncio.all_tasks)) == 1  # the one that asks


def test_ctrl_c_while_waiting_for_a_result_cancels_too(worker: ScriptedWorker) -> None:
    with opened(worker) as session:
        execution = session.start(SLEEP)
        main = threading.main_thread().ident or 0
        timer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            execution.result()
        timer.join()
        assert execution.state.value == "finished"


def test_a_pool_without_async() -> None:
    with sync.WorkerPool(1) as pool:
        assert (pool.size, pool.waiting) == (1, 1)
        with pool.open_session("s", capabilities={"f": lambda: "host"}) as session:
            assert session.execute("f()").value == "host"
    with pytest.raises(pyrepl3.SessionClosed), pool.open_session():
        pass


def test_a_pool_without_async_is_bounded_and_has_sessions_by_name(tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    with sync.WorkerPool(1, max_sessions=1, acquire_timeout=10, idle_timeout=60, fork=False) as pool:
        session = pool.acquire()
        with pytest.raises(pyrepl3.PoolTimeout):
            pool.acquire(0.01)
        pool.release(session)
        with pytest.raises(ValueError, match="not released yet"):
            pool.release(session)
        with pool.session("a", store=store) as one, pool.session("a", store=store) as two:
            one.execute("x = 1")
            assert two.get("x") == 1
        with pytest.raises(pyrepl3.SessionClosed, match="given back"):
            one.execute("x")
        with pool.session("b", store=store) as other:
            assert other.execute("'x' in globals()").value is False
        with pool.session("a", store=store) as back:
            assert back.execute("x").value == 1
        assert (pool.stats().passivated, pool.stats().held, pool.max_sessions) == (2, 0, 1)
        assert pool.close_session("a", store=store) is True
        assert pool.drain() is True
        with pytest.raises(pyrepl3.PoolClosed, match="is drained"):
            pool.acquire()
    with pytest.raises(pyrepl3.PoolClosed, match="is not open"):
        pool.session("a")


def test_a_session_of_a_pool_that_is_dropped_gives_its_place_back() -> None:
    with sync.WorkerPool(1, max_sessions=1, acquire_timeout=20, fork=False) as pool:
        with pytest.warns(ResourceWarning, match="of a pool was never given back: use `with`"):
            pool.acquire()
        execution = pool.open_session().start("import asyncio; await asyncio.sleep(0.01); 42")
        assert execution.result().value == 42  # it keeps its session
        with pytest.warns(ResourceWarning, match="of a pool was never given back"):
            del execution
        with pool.acquire() as session:
            files = session.files
            files.write("x", b"1")
            assert files.read("x") == b"1"
            files.remove("x")
        pool.release(pool.acquire())
        assert pool.stats().sessions == 0


def test_a_pool_that_cannot_start_leaves_no_thread() -> None:
    with pytest.raises(pyrepl3.SpawnError), sync.WorkerPool(1, warm=("no_such_module",)):
        pass


def test_a_whole_program_and_ctrl_c_in_its_terminal() -> None:
    """The signal goes to the whole foreground group, as a terminal sends it; the worker is not in it."""
    program = (
        "from pyrepl3_client import sync\n"
        "with sync.open_session(on_output=lambda o: print(o.data, end='', flush=True)) as session:\n"
        "    session.execute('x = 41')\n"
        "    try:\n"
        "        session.execute(\"print('running')\\nwhile True: pass\")\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', session.execute('x + 1').value, session.worker.incarnation)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, process_group=0
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted 42 1\n"
        assert process.wait() == 0


def test_a_program_that_never_leaves_its_session_ends_and_so_does_the_worker() -> None:
    program = (
        "from pyrepl3_client import sync\n"
        "context = sync.open_session()\n"
        "session = context.__enter__()\n"
        "print(session.execute('1 + 1').value, session.worker.pid)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    value, pid = done.stdout.split()
    assert value == "2"
    try:
        fd = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(5_000)
    os.close(fd)
