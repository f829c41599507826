"""The end of the worker's process, by whatever means, and what comes after it."""

import os
import signal
from collections.abc import Iterator

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.hanging_code import HANG
from tests.helpers.processes import ended
from tests.helpers.real_sessions import quick, seen, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

DEATHS = [
    pytest.param("import os; os._exit(7)", 7, None, id="os._exit"),
    pytest.param("import os; os._exit(0)", 0, None, id="os._exit with 0"),
    pytest.param("import os; os.abort()", None, signal.SIGABRT, id="os.abort"),
    pytest.param(
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL, id="kill -9"
    ),
    pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", None, signal.SIGTERM, id="kill"),
    pytest.param(
        "import os, signal; os.killpg(0, signal.SIGKILL)", None, signal.SIGKILL, id="kill of the group"
    ),
    pytest.param("import ctypes; ctypes.string_at(0)", None, signal.SIGSEGV, id="a segmentation fault"),
    pytest.param(
        "import time, ctypes; time.sleep(0); ctypes.string_at(0)", None, signal.SIGSEGV, id="one in a thread"
    ),
    pytest.param(
        "import os; os.execv('/bin/sh', ['sh', '-c', 'exit 5'])", 5, None, id="another program's exit"
    ),
    pytest.param(
        "import asyncio, os\nawait asyncio.sleep(0)\nos._exit(8)", 8, None, id="os._exit after an await"
    ),
]


@pytest.mark.parametrize(("code", "exit_code", "number"), DEATHS)
async def test_death_is_told_with_its_cause(
    session: pyrepl3.Session, code: str, exit_code: int | None, number: int | None
) -> None:
    await session.execute("lost = 1")
    with pytest.raises(pyrepl3.WorkerDied) as death:
        await session.execute(code)
    assert (death.value.exit_code, death.value.signal) == (exit_code, number)
    await session.restart()
    assert await works(session)
    assert await value(session, "'lost' in globals()") is False
    assert session.worker.incarnation == 2


async def test_a_segmentation_fault_leaves_its_traceback(session: pyrepl3.Session) -> None:
    with pytest.raises(pyrepl3.WorkerDied) as death:
        await session.execute("import ctypes\ndef into_the_void():\n    ctypes.string_at(0)\ninto_the_void()")
    assert "Segmentation fault" in death.value.stderr
    assert "into_the_void" in death.value.stderr


async def test_output_before_death_is_seen(session: pyrepl3.Session) -> None:
    execution = session.start("import os\nprint('last words')\nos.write(1, b'by number\\n')\nos._exit(1)")
    assert "last words\n" in await seen(execution, "by number\n")
    with pytest.raises(pyrepl3.WorkerDied):
        await execution.result()


async def test_queued_executions_hear_of_the_death(session: pyrepl3.Session) -> None:
    dying, waiting = session.start("import os; os._exit(3)"), session.start("'never run'")
    for execution in (dying, waiting):
        with pytest.raises(pyrepl3.WorkerDied) as death:
            await execution.result()
        assert death.value.exit_code == 3


async def test_a_worker_killed_from_outside_while_idle(session: pyrepl3.Session) -> None:
    import os

    pid = session.worker.pid
    os.kill(pid, signal.SIGKILL)
    assert await ended(pid)
    with pytest.raises(pyrepl3.WorkerDied) as death:
        await session.execute("1")
    assert death.value.signal == signal.SIGKILL
    await session.restart()
    assert await works(session)


async def test_restart_while_busy(session: pyrepl3.Session) -> None:
    busy = session.start("print('ready')\nwhile True: pass")
    await seen(busy)
    old = session.worker.pid
    await session.restart()
    with pytest.raises((pyrepl3.WorkerDied, pyrepl3.ExecutionCancelled)):
        await busy.result()
    assert await ended(old)
    assert session.worker.pid != old
    assert await works(session)


async def test_children_of_a_dead_worker_are_gone(session: pyrepl3.Session) -> None:
    child = await value(session, "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nchild.pid")
    with pytest.raises(pyrepl3.WorkerDied):
        await session.execute("import os; os._exit(1)")
    assert await ended(child)


async def test_many_deaths_in_a_row() -> None:
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        for number in range(1, 6):
            with pytest.raises(pyrepl3.WorkerDied) as death:
                await session.execute(f"import os; os._exit({number})")
            assert death.value.exit_code == number
            await session.restart()
        assert await works(session)
        assert session.worker.incarnation == 6


async def test_a_worker_that_does_not_answer_its_end_is_killed() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        pid = session.worker.pid
        hung = session.start("print('ready')\n" + HANG)
        await seen(hung)
    assert await ended(pid, 0)
    with pytest.raises(pyrepl3.PyRepl3Error):
        await hung.result()


async def test_the_session_is_closed_for_good() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("1")
    with pytest.raises(pyrepl3.SessionClosed):
        await session.execute("1")


async def test_sys_exit_is_no_death(shared: pyrepl3.Session) -> None:
    result = await shared.execute("import sys; sys.exit(3)", check=False)
    assert type_of(result) == "SystemExit"
    assert await works(shared)


@pytest.fixture
def ignored_children() -> Iterator[None]:
    """The kernel takes the exit status of every child of ours, as for a program whose shell ignored SIGCHLD."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("ignored_children")
async def test_a_death_whose_status_somebody_else_has_taken_is_noticed() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("x = 1")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "x") == 1
        cause = session.recoveries[0].cause
        assert cause is not None
        assert (cause.exit_code, cause.signal, cause.peak_rss) == (None, None, None)
        assert "SIGCHLD" in cause.cause


async def test_the_peak_memory_is_the_workers_own() -> None:
    """The kernel counts what the parent had in memory when it started a process as that process's own."""
    most = bytearray(b"x") * 400_000_000
    del most
    async with pyrepl3.open_session(recovery="none", config=quick()) as session:
        execution = session.start("import os; os._exit(3)")
        with pytest.raises(pyrepl3.WorkerDied) as death:
            await execution
        assert death.value.certificate is not None
        assert (death.value.certificate.peak_rss or 0) < 300_000_000
