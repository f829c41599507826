"""Forked children in a cell: they end, they leave no frame and no process, and the parent goes on."""

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.processes import ended
from tests.helpers.real_sessions import quick, value, works

pytestmark = pytest.mark.anyio

PLACES = [
    pytest.param("", id="sync"),
    pytest.param("import asyncio\nawait asyncio.sleep(0)\n", id="await"),
    pytest.param("import time\ntime.sleep(0)\n", id="blocking"),
]
ENDS = [
    pytest.param("pass", 0, id="returns"),
    pytest.param("raise ValueError('in the child')", 1, id="raises"),
    pytest.param("import sys; sys.exit(5)", 5, id="sys.exit"),
    pytest.param("os._exit(6)", 6, id="os._exit"),
    pytest.param("print('from the child')", 0, id="prints"),
    pytest.param("input('?')", 1, id="asks"),
    pytest.param("value = 5\nvalue", 0, id="has a value"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("end", "status"), ENDS)
async def test_a_forked_child_ends_by_itself(
    shared: pyrepl3.Session, place: str, end: str, status: int
) -> None:
    body = "\n".join(f"    {line}" for line in end.splitlines())
    result = await shared.execute(
        f"{place}import os\nended = None\nprint('before')\npid = os.fork()\nif pid == 0:\n{body}\nelse:\n"
        "    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n    print('parent')\nended"
    )
    assert result.value == status
    child = "from the child\n" if "print" in end else ""
    assert result.stdout == f"before\n{child}parent\n"
    if status == 1 and "raise" in end:
        assert "ValueError: in the child" in result.stderr
    assert await works(shared)


async def test_a_child_that_stays_is_gone_with_the_session() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        pid = await value(
            session, "import os, signal\npid = os.fork()\nif pid == 0:\n    while True: signal.pause()\npid"
        )
        assert await works(session)
    assert await ended(pid)


async def test_a_child_in_a_session_of_its_own_is_gone_too() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        pid = await value(
            session,
            "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True).pid",
        )
        assert await works(session)
    assert await ended(pid)


async def test_a_child_does_not_keep_the_pipes_open() -> None:
    """The session's end is not put off by a process that holds fds 1 and 2."""
    async with pyrepl3.open_session(config=quick()) as session:
        pid = await value(
            session,
            "import os\npid = os.fork()\nif pid == 0:\n    os.setsid()\n    os.execv('/bin/sleep', ['sleep', '600'])\npid",
        )
    assert await ended(pid)


async def test_multiprocessing_by_fork(shared: pyrepl3.Session) -> None:
    result = await shared.execute(
        "import multiprocessing, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "def square(n): return n * n\n"
        "ctx = multiprocessing.get_context('fork')\n"
        "p = ctx.Process(target=print, args=('from the process',))\n"
        "p.start(); p.join()\n"
        "with ctx.Pool(2) as pool: squares = pool.map(square, range(5))\n"
        "(p.exitcode, squares)"
    )
    assert result.value == [0, [0, 1, 4, 9, 16]]
    assert result.stdout == "from the process\n"
    assert await works(shared)


async def test_a_process_pool_executor(shared: pyrepl3.Session) -> None:
    numbers = await value(
        shared,
        "import multiprocessing, warnings\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "warnings.simplefilter('ignore')\n"
        "def cube(n): return n ** 3\n"
        "with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:\n"
        "    cubes = list(pool.map(cube, [1, 2, 3]))\n"
        "cubes",
    )
    assert numbers == [1, 8, 27]
    assert await works(shared)


async def test_a_child_that_goes_on_with_the_loop_is_no_second_worker(shared: pyrepl3.Session) -> None:
    """A fork in a background task returns into the loop itself."""
    result = await shared.execute(
        "import asyncio, os\n"
        "async def forks():\n"
        "    return os.fork()\n"
        "pid = await asyncio.create_task(forks())\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else None"
    )
    assert result.value == 0
    assert await works(shared)


async def test_a_host_function_is_not_called_by_a_child() -> None:
    calls: list[str] = []
    async with pyrepl3.open_session(config=quick(), capabilities={"note": calls.append}) as session:
        status = await value(
            session,
            "import os\npid = os.fork()\nif pid == 0: note('child')\n"
            "note('parent')\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])",
        )
        assert await works(session)
    assert calls == ["parent"]
    assert status == 1
