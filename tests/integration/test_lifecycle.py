"""How workers start and end, from the first frame to the last process, and that nothing is left.

It is long because it follows a worker through its whole life.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import pyrepl3_client as pyrepl3
import pyrepl3_client.sync
from tests.helpers.processes import ended
from tests.helpers.real_sessions import PATIENCE, lives, quick, seen, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

STATES = {
    "idle": "",
    "busy": "while True: pass",
    "asleep": "import asyncio, time; asyncio; time.sleep(600)",
    "awaiting": "import asyncio; await asyncio.sleep(600)",
    "blocking": "import time; time.sleep(600)",
    "asking": "input()",
    "with a background task": "import asyncio; t = asyncio.create_task(asyncio.sleep(600))",
    "with a thread": "import threading; threading.Thread(target=threading.Event().wait).start()",
    "with a child": "import subprocess; subprocess.Popen(['sleep', '600']) and None",
    "deaf": "import signal; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGTERM, signal.SIGINT)] and None",
}


@pytest.mark.parametrize("state", STATES)
async def test_leaving_leaves_nothing_behind(state: str) -> None:
    """The fixture that watches every test sees processes, threads, fds and files."""
    async with pyrepl3.open_session(config=quick()) as session:
        pid = session.worker.pid
        if STATES[state]:
            execution = session.start(f"print('ready')\n{STATES[state]}")
            await seen(execution)
    assert await ended(pid, 0)


@pytest.mark.parametrize("state", ["idle", "busy", "awaiting", "blocking"])
async def test_leaving_by_an_error_leaves_nothing_behind(state: str) -> None:
    pids: list[int] = []

    async def fails_inside() -> None:
        async with pyrepl3.open_session(config=quick()) as session:
            pids.append(session.worker.pid)
            if STATES[state]:
                session.start(STATES[state])
            raise LookupError

    with pytest.raises(LookupError):
        await fails_inside()
    assert await ended(pids[0], 0)


async def test_leaving_by_a_cancel_leaves_nothing_behind() -> None:
    pid = 0
    with anyio.move_on_after(0.3) as scope:
        async with pyrepl3.open_session(config=quick()) as session:
            pid = session.worker.pid
            await session.execute("while True: pass")
    assert scope.cancelled_caught
    assert await ended(pid, 0)


async def test_opening_can_be_cancelled() -> None:
    for delay in (0.0, 0.005, 0.02, 0.04):
        with anyio.move_on_after(delay):
            async with pyrepl3.open_session(config=quick()):
                pass


PARENT = """
import asyncio, sys
import pyrepl3_client as pyrepl3
async def main():
    async with pyrepl3.open_session() as session:
        execution = session.start(sys.argv[1])
        async for event in execution:
            print(session.worker.pid, flush=True)
            await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["busy", "asleep", "awaiting", "blocking"])
async def test_a_worker_dies_with_its_killed_parent(state: str) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - awaited below by its pidfd
        [sys.executable, "-c", PARENT, f"print('ready')\n{STATES[state]}"], stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(parent.stdout)
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.send_signal(signal.SIGKILL)
        assert await ended(pid)
    finally:
        parent.kill()
        parent.communicate()


# --- many ---------------------------------------------------------------------------------------------


async def test_50_sessions_at_once() -> None:
    totals: list[int] = []

    async def one(number: int) -> None:
        async with pyrepl3.open_session(config=quick()) as session:
            await session.execute(f"mine = {number}")
            totals.append(await value(session, "import asyncio\nawait asyncio.sleep(0)\nmine * 2"))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(one, number)
    assert sorted(totals) == [2 * number for number in range(50)]


async def test_a_thousand_executions_in_a_row_and_at_once(shared: pyrepl3.Session) -> None:
    await shared.execute("total = 0")
    executions = [shared.start(f"total += {number}") for number in range(1000)]
    assert (await executions[-1].result()).value == sum(range(1000))
    assert [(await execution.result()).error for execution in executions] == [None] * 1000


async def test_a_pool_gives_sessions_one_after_the_other() -> None:
    async with pyrepl3.WorkerPool(2, quick(), warm=("json", "decimal")) as pool:
        assert pool.waiting == 2
        pids: set[int] = set()
        for _ in range(4):
            async with pool.open_session() as session:
                assert await value(session, "import sys\n'decimal' in sys.modules") is True
                assert await value(session, "'left' in globals()") is False
                await session.execute("left = 1")
                pids.add(session.worker.pid)
        assert len(pids) == 4


def test_the_sync_facade_does_the_same() -> None:
    with pyrepl3_client.sync.open_session(config=quick(), on_input=lambda _: "typed") as session:
        assert session.execute("import asyncio; await asyncio.sleep(0, 42)").value == 42
        assert session.execute("input('? ')").value == "typed"
        execution = session.start("print('ready')\nwhile True: pass")
        assert next(data for event in execution if (data := getattr(event, "data", ""))) == "ready\n"
        execution.cancel("interrupt")
        with pytest.raises(pyrepl3.ExecutionCancelled):
            execution.result()
        assert session.variables() == {"asyncio": session.variables()["asyncio"]}
        session.restart()
        assert session.worker.incarnation == 2


async def test_sessions_in_other_threads_loops() -> None:
    """A session belongs to its loop; another thread may have loops of its own."""

    async def elsewhere() -> int:
        async with pyrepl3.open_session(config=quick()) as session:
            return (await session.execute("6 * 7")).value

    def in_thread() -> int:
        return anyio.run(elsewhere)

    assert await anyio.to_thread.run_sync(in_thread) == 42


async def test_the_thread_that_opened_a_session_may_end() -> None:
    """PR_SET_PDEATHSIG goes by thread: a worker must not die with the thread that happened to spawn it."""
    with pyrepl3_client.sync.open_session(config=quick()) as first:
        holder: list[object] = []
        opened = pyrepl3_client.sync.open_session(config=quick())
        thread = threading.Thread(target=lambda: holder.append(opened.__enter__()))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        try:
            (session,) = holder
            assert isinstance(session, pyrepl3_client.sync.Session)
            assert session.execute("1 + 1").value == 2
        finally:
            opened.__exit__(None, None, None)
        assert first.execute("2 + 2").value == 4


# --- where it runs ------------------------------------------------------------------------------------


async def test_modules_of_the_cwd_do_not_shadow_the_workers_own(tmp_path: Path) -> None:
    for name in ("asyncio", "msgspec", "json", "select", "pyrepl3_worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemError('shadowed')")
    (tmp_path / "mine.py").write_text("answer = 42")
    config = pyrepl3.WorkerConfig(cwd=str(tmp_path), close_grace=1.0)
    async with pyrepl3.open_session(config=config) as session:
        assert await value(session, "import mine\nmine.answer") == 42
        assert await value(session, "import os\nos.getcwd()") == str(tmp_path)


async def test_environment_on_top_of_the_parents() -> None:
    config = pyrepl3.WorkerConfig(env={"PYREPL3_TEST": "here"})
    async with pyrepl3.open_session(config=config) as session:
        assert await value(session, "import os\n[os.environ['PYREPL3_TEST'], os.environ['PATH'][-4:]]") == [
            "here",
            os.environ["PATH"][-4:],
        ]


async def test_a_wrong_interpreter_says_so() -> None:
    with pytest.raises(pyrepl3.SpawnError, match="no/such/python"):
        async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(python="/no/such/python")):
            pass


async def test_the_confinement_in_force_is_reported(shared: pyrepl3.Session) -> None:
    worker = shared.worker
    assert worker.pid == await value(shared, "import os\nos.getpid()")
    assert worker.python == await value(shared, "import platform\nplatform.python_version()")
    assert "dies_with_parent" in worker.confinement
    assert lives(worker.pid)


async def test_code_that_arrives_while_a_task_holds_the_loop_is_run_afterwards(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    """The ping's wake-up signal makes the worker read the execution too, where it can start nothing."""
    flag = tmp_path / "go on"
    await session.execute(
        "import asyncio, os\n"
        "async def hold():\n"
        f"    while not os.path.exists({str(flag)!r}): pass\n"
        "task = asyncio.create_task(hold())"
    )
    await session.ping()
    waiting = session.start("'run'")
    assert (await session.ping()).queue == 1
    flag.touch()
    with anyio.fail_after(10):
        assert (await waiting.result()).value == "run"
