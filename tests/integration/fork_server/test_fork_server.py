"""Workers forked from a fork server are like spawned ones in all that users see."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch.fork_server import ForkServer
from tests.helpers.fork_servers import double, modules, opened, ready, typed
from tests.helpers.hanging_code import HANG
from tests.helpers.processes import ended
from tests.helpers.real_sessions import cleanly_stopped, quick, run, seen, stop, value, works

pytestmark = pytest.mark.anyio

KINDS_OF_FDS = """
import os
kinds = []
for fd in os.listdir('/proc/self/fd'):
    try:
        kinds.append(os.readlink(f'/proc/self/fd/{fd}').partition(':')[0])
    except FileNotFoundError:
        pass
sorted(kinds)
"""


# --- like any other worker ----------------------------------------------------------------------------


async def test_a_forked_worker_does_what_workers_do() -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server, capabilities={"double": double}, on_input=typed) as session:
            assert await works(session)
            assert await value(session, "double(21)") == 42
            assert await value(session, "input('? ')") == "typed"
            assert (
                await run(session, "import os\nos.write(1, b'by number\\n')\nNone")
            ).stdout == "by number\n"
            await session.execute("kept = [1]")
            checkpoint = await session.checkpoint()
            assert checkpoint is not None
            await session.restart()
            assert session.worker.incarnation == 2
            assert await works(session)
        assert fork_server.reason is None


async def test_it_is_our_child_and_looks_like_a_spawned_one() -> None:
    question = (
        "import gc, os, sys, threading, signal\n"
        "[os.getppid(), os.getsid(0) == os.getpgid(0) == os.getpid(), threading.get_native_id() == os.getpid(),\n"
        " threading.current_thread() is threading.main_thread(), sys.argv[0], sys.path[0],\n"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.pthread_sigmask(0, []) == set(),\n"
        " os.getcwd(), __name__]"
    )
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as forked, pyrepl3.open_session(config=quick()) as spawned:
            facts = await value(forked, question)
            assert facts == await value(spawned, question)
            assert facts[0] == os.getpid()
            assert forked.worker.confinement == spawned.worker.confinement
            # Above all no fd of the fork server: a process that it forked for a worker would have no owner.
            kinds = await value(forked, KINDS_OF_FDS)
            assert kinds == await value(spawned, KINDS_OF_FDS)
            assert await value(forked, "gc.get_freeze_count() > 10_000")


async def test_code_in_it_forks_and_starts_threads() -> None:
    code = (
        "import multiprocessing, threading, subprocess, warnings\nwarnings.simplefilter('ignore')\n"
        "def square(n): return n * n\n"
        "found = []\nthread = threading.Thread(target=found.append, args=(threading.get_native_id(),))\n"
        "thread.start(); thread.join()\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: squares = pool.map(square, range(4))\n"
        "[len(found), squares, subprocess.run(['echo', 'hello'], capture_output=True, text=True).stdout]"
    )
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            assert await value(session, code) == [1, [0, 1, 4, 9], "hello\n"]


async def test_cancelling_goes_through_all_its_steps() -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            spinning = session.start("print('ready')\nwhile True: pass")
            await seen(spinning)
            assert cleanly_stopped(await stop(spinning))
            assert await works(session)
            stubborn = session.start(f"print('ready')\n{HANG}")
            await seen(stubborn)
            with suppress(pyrepl3.WorkerDied):  # the recovery policy decides how the killed one ends
                await stop(stubborn)
            if session.worker.incarnation == 1:
                await session.restart()
            assert await works(session)


@pytest.mark.parametrize(
    ("code", "exit_code", "number"),
    [
        ("import os; os._exit(7)", 7, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL),
        ("import os, signal; os.killpg(0, signal.SIGKILL)", None, signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", None, signal.SIGSEGV),
        ("import os; os.abort()", None, signal.SIGABRT),
        ("import os; os.execv('/bin/sh', ['sh', '-c', 'exit 5'])", 5, None),
    ],
)
async def test_its_death_is_reported_with_its_cause(
    code: str, exit_code: int | None, number: int | None
) -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session, opened(fork_server) as other:
            with pytest.raises(pyrepl3.WorkerDied) as death:
                await session.execute(code)
            assert (death.value.exit_code, death.value.signal) == (exit_code, number)
            if number == signal.SIGSEGV:
                assert "Segmentation fault" in death.value.stderr
            assert await works(other)
        assert fork_server.reason is None


async def test_children_of_the_code_end_with_it() -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            pid = await value(session, "import subprocess\nsubprocess.Popen(['sleep', '600']).pid")
            os.kill(session.worker.pid, signal.SIGKILL)
        assert await ended(pid)


# --- many from one ------------------------------------------------------------------------------------


async def test_many_at_once_share_nothing_that_is_random(tmp_path: Path) -> None:
    code = (
        "import os, random, secrets, tempfile, uuid, multiprocessing\n"
        "[random.random(), tempfile.mktemp(), str(uuid.uuid4()), str(uuid.uuid1()), secrets.token_hex(8),\n"
        " bytes(multiprocessing.current_process().authkey).hex(), os.getpid()]"
    )
    config = replace(quick(), warm=("random", "tempfile", "uuid", "multiprocessing"))
    async with ForkServer(config) as fork_server:
        await ready(fork_server)

        async def one() -> list[Any]:
            async with opened(fork_server) as session:
                return await value(session, code)

        answers = await asyncio.gather(*(one() for _ in range(12)))
        assert fork_server.reason is None
    for column in zip(*answers, strict=True):
        assert len(set(column)) == len(answers)


async def test_numpy_is_copied_without_its_threads_and_with_other_random_numbers() -> None:
    pytest.importorskip("numpy")
    config = replace(quick(), warm=("numpy", "numpy.random"))
    async with ForkServer(config) as fork_server:
        await ready(fork_server)
        numbers: set[float] = set()
        for _ in range(2):
            async with opened(fork_server) as session:
                # Large enough for the threads that its library starts anew.
                assert await value(
                    session, "import numpy\na = numpy.ones((300, 300))\nfloat((a @ a)[0, 0])"
                ) == 300.0  # fmt: skip
                numbers.add(await value(session, "float(numpy.random.rand())"))
        assert len(numbers) == 2


async def test_modules_are_imported_once(tmp_path: Path) -> None:
    config = modules(tmp_path, told="import os\nprint('dropped')\npid = os.getpid()")
    output: list[pyrepl3.Output] = []
    async with ForkServer(config) as fork_server:
        await ready(fork_server)
        for _ in range(2):
            async with opened(fork_server, on_output=output.append) as session:
                assert await value(session, "import told\ntold.pid") == fork_server.pid
    assert output == []
