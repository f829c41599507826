# ruff: noqa: E501 - a program a line reads best
"""Attempts that cost a worker its life, or use up what it has: each has a worker of its own."""

import asyncio
import os
import signal
import sys

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ResourceLimits, SandboxPolicy
from tests.confinement.outside_world import OutsideWorld, processes_with
from tests.confinement.sessions import is_working, run, strict_config, value
from tests.helpers.processes import ended

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
SMALL = ResourceLimits(
    max_processes=60, max_open_files=100, max_file_bytes=MEGABYTE, max_memory_bytes=400 * MEGABYTE
)
TIGHT = SandboxPolicy(work_bytes=4 * MEGABYTE)

EXHAUSTING = [
    pytest.param("import os\nfds = []\nwhile True: fds.append(os.dup(0))", "OSError", "Too many open files", id="fds"),
    pytest.param("hoard = []\nwhile True: hoard.append(bytearray(10**7))", "MemoryError", "", id="memory"),
    pytest.param("f = open('/tmp/large', 'wb')\nwhile True: f.write(bytes(10**5))", "OSError", "File too large", id="one file"),
    pytest.param(
        "for n in range(100):\n    with open(f'/tmp/part{n}', 'wb') as f: f.write(bytes(10**6))", "OSError", "No space left", id="the disk"
    ),
    pytest.param(
        "for n in range(100):\n    with open(f'/dev/shm/part{n}', 'wb') as f: f.write(bytes(10**6))",
        "OSError", "No space left", id="shared memory",
    ),
    pytest.param("for n in range(10**6): open(f'/tmp/{n}', 'w').close()", "OSError", "No space left", id="names of files"),
    pytest.param(
        "import os, signal\nchildren = []\nwhile True:\n    pid = os.fork()\n    if pid == 0: signal.pause()\n    children.append(pid)",
        "BlockingIOError", "Resource temporarily unavailable", id="processes",
    ),
    pytest.param(
        "import threading\nstop = threading.Event()\nwhile True: threading.Thread(target=stop.wait, daemon=True).start()",
        "RuntimeError", "can't start new thread", id="threads",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "kind", "message"), EXHAUSTING)
async def test_what_is_used_up_is_used_up_for_the_code_alone(
    confined: pyrepl3.Session, code: str, kind: str, message: str
) -> None:
    async with pyrepl3.open_session(config=strict_config(limits=SMALL, sandbox=TIGHT)) as session:
        result = await run(session, code)
        assert result.error is not None
        assert result.error.type == kind, result.error.traceback
        assert message in result.error.message
        told = {
            "Too many open files": "max_open_files=100",
            "File too large": "max_file_bytes",
            "No space left": "work_bytes",
            "": "max_memory_bytes",
            "can't start new thread": "max_processes",
        }
        if message in told:
            assert result.error.kind == "limit"
            assert told[message] in " ".join(result.error.notes)
        # The parent and others go on.
        assert await is_working(confined)


async def test_limits_are_told_and_cannot_be_raised() -> None:
    async with pyrepl3.open_session(config=strict_config(limits=SMALL)) as session:
        names = {"max_open_files", "max_file_bytes", "max_memory_bytes", "max_processes"}
        assert names <= set(session.worker.confinement)
        for limit in ("NOFILE", "FSIZE", "DATA", "CORE"):
            code = f"import resource as r\nr.setrlimit(r.RLIMIT_{limit}, (r.RLIM_INFINITY, r.RLIM_INFINITY))"
            result = await run(session, code)
            assert result.error is not None
            assert result.error.type == "ValueError"
            assert "exceed maximum limit" in result.error.message or "not allowed" in result.error.message


async def test_a_fork_bomb_ends_with_its_cell() -> None:
    bomb = "import os\nprint('ready', flush=True)\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    async with pyrepl3.open_session(
        config=strict_config(limits=ResourceLimits(max_processes=100))
    ) as session:
        pid = session.worker.pid
        with anyio.fail_after(30):
            execution = session.start(bomb)
            async for _ in execution:
                break
            await execution.cancel()
            with pytest.raises(pyrepl3.PyRepl3Error):
                await execution.result()
    assert await ended(pid)


async def test_cpu_time_runs_out() -> None:
    async with pyrepl3.open_session(
        config=strict_config(limits=ResourceLimits(max_cpu_seconds=1))
    ) as session:
        assert "max_cpu_seconds" in session.worker.confinement
        with anyio.fail_after(20), pytest.raises(pyrepl3.WorkerDied) as death:
            await session.execute("while True: pass")
        assert death.value.signal in (signal.SIGXCPU, signal.SIGKILL)


DETACH = """
import ctypes, os, signal, subprocess
COMMAND = ['sh', '-c', 'echo; sleep 600; : ' + TOKEN]
def start(**options):
    subprocess.Popen(COMMAND, stdout=subprocess.PIPE, **options).stdout.readline()
def detach(*ignored):
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for number in ignored: signal.signal(number, signal.SIG_IGN)
        if os.fork(): os._exit(0)
        os.dup2(w, 1)
        os.execvp('sh', COMMAND)
    os.wait()
    os.read(r, 1)
"""
LEAVING = {
    "a child": "start()",
    "a child in a session of its own": "start(start_new_session=True)",
    "a daemon, by a double fork": "detach()",
    "one that ignores what it is told": "detach(1, 2, 3, 10, 12, 13, 14, 15)",
    "a worker that will not die with its parent": "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ndetach()",
}
ENDINGS = ["close", "kill", "os._exit", "closed while busy"]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_nothing_outlives_the_worker(ending: str) -> None:
    digits = os.urandom(3).hex().translate(str.maketrans("abcdef", "012345"))
    tokens = {name: f"98{os.getpid()}.{number}{digits}" for number, name in enumerate(LEAVING)}
    async with pyrepl3.open_session(config=strict_config()) as session:
        left: list[int] = []
        for name, token in tokens.items():
            await session.execute(f"TOKEN = {token!r}\n{DETACH}\n{LEAVING[name]}")
            found = [os.pidfd_open(pid) for pid in processes_with(token)]
            assert found, f"{name} was never there"
            left += found
        match ending:
            case "kill":
                os.kill(session.worker.pid, signal.SIGKILL)
            case "os._exit":
                with pytest.raises(pyrepl3.WorkerDied):
                    await session.execute("os._exit(3)")
            case "closed while busy":
                session.start("while True:\n    try: time.sleep(60)\n    except BaseException: pass")
            case _:
                pass
    with anyio.fail_after(10):
        for fd in left:
            await anyio.wait_readable(fd)
            os.close(fd)
    assert [name for name, token in tokens.items() if processes_with(token)] == []


@pytest.mark.parametrize("ending", ["close", "os._exit"])
async def test_a_close_ends_whatever_holds_the_keeper_up(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = await pyrepl3.open_session(config=strict_config(), recovery="none").__aenter__()
    keeper = session.worker.pid
    os.kill(keeper, signal.SIGSTOP)
    if ending == "os._exit":
        session.start("import os; os._exit(0)")
    with anyio.fail_after(20):
        await session.close()
    assert await ended(keeper)
    assert "did not end when it was killed" in caplog.text


async def test_the_parents_death_ends_it_all(world: OutsideWorld) -> None:
    """Whatever the code did about it."""
    token = f"97{os.getpid()}.5"
    program = f"""
import asyncio, os, signal
import pyrepl3_client as pyrepl3
async def main():
    async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(confinement="strict")) as session:
        await session.execute("import ctypes, subprocess, signal, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)")
        await session.execute("child = subprocess.Popen(['sh', '-c', 'echo up; sleep {token}; :'], start_new_session=True, stdout=-1)")
        # Its command line can be read only a moment after `exec` is done.
        await session.execute("child.stdout.readline()")
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=-1)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"ready\n"
    left = [os.pidfd_open(pid) for pid in processes_with(token) if pid != parent.pid]
    parent.kill()
    await parent.communicate()
    assert left
    with anyio.fail_after(10):
        for fd in left:
            await anyio.wait_readable(fd)
            os.close(fd)


async def test_no_other_session_sees_the_work_directory() -> None:
    name = f"pyrepl3-test-{os.getpid()}"
    async with pyrepl3.open_session(config=strict_config()) as session:
        code = f"import os\nopen('{name}', 'w').write('x')\n[os.getcwd(), os.listdir('/tmp').count('{name}')]"
        assert await value(session, code) == ["/tmp", 1]
        assert name not in await asyncio.to_thread(os.listdir, "/tmp")
        async with pyrepl3.open_session(config=strict_config()) as other:
            assert await value(other, f"import os\nos.path.exists('/tmp/{name}')") is False
