"""Workers as real child processes: how they start, how starting fails, and how they end."""

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig
from pyrepl3_client._launch.spawn import spawn

pytestmark = pytest.mark.anyio


def child(tmp_path: Path, body: str) -> str:
    """Return the path of an "interpreter" that runs a few lines of Python instead of a worker."""
    path = tmp_path / "interpreter"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def start(config: WorkerConfig) -> pyrepl3.SpawnError:
    """Open a session that fails; return the error."""
    with pytest.raises(pyrepl3.SpawnError) as error:
        async with pyrepl3.open_session(config=config):
            pass
    return error.value


async def test_an_interpreter_that_is_not_there() -> None:
    error = await start(WorkerConfig(python="/no/such/python"))
    assert "'/no/such/python'" in str(error)
    assert "No such file" in str(error)
    assert isinstance(error.__cause__, FileNotFoundError)


async def test_an_interpreter_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    assert "Permission denied" in str(await start(WorkerConfig(python=str(tmp_path / "text"))))


async def test_a_directory_that_is_not_there() -> None:
    assert "/no/such/directory" in str(await start(WorkerConfig(cwd="/no/such/directory")))


async def test_an_interpreter_without_our_package(tmp_path: Path) -> None:
    body = "sys.stderr.write('No module named pyrepl3_worker\\n'); sys.exit(1)"
    error = await start(WorkerConfig(python=child(tmp_path, body)))
    assert (error.exit_code, error.signal, error.stderr) == (1, None, "No module named pyrepl3_worker")
    assert "ended before it was ready (exit code 1)" in str(error)


FRAMES_OUT = "out = int(sys.argv[sys.argv.index('--frames') + 1].split(',')[1])"
"""Has an "interpreter" know the fd that the worker would speak on."""


async def test_a_program_that_writes_what_is_no_frame(tmp_path: Path) -> None:
    body = f"{FRAMES_OUT}\nos.write(out, b'Welcome to my program!')"
    error = await start(WorkerConfig(python=child(tmp_path, body)))
    assert "broke the protocol: frame length" in str(error)
    assert isinstance(error.__cause__, pyrepl3.ProtocolError)


async def test_a_program_that_ends_inside_a_frame(tmp_path: Path) -> None:
    body = f"{FRAMES_OUT}\nos.write(out, b'\\0\\0\\0\\5abc')"
    error = await start(WorkerConfig(python=child(tmp_path, body)))
    assert (error.exit_code, error.signal) == (0, None)
    assert "ended inside a frame" in str(error.__cause__)


async def test_a_program_that_says_nothing(tmp_path: Path) -> None:
    body = "sys.stderr.write('still thinking\\n'); sys.stderr.flush(); time.sleep(600)"
    error = await start(WorkerConfig(python=child(tmp_path, body), spawn_timeout=0.5))
    assert error.signal == signal.SIGKILL
    assert "it was not ready within 0.5 seconds" in str(error)
    assert error.stderr == "still thinking"


async def test_a_program_that_kills_itself(tmp_path: Path) -> None:
    error = await start(WorkerConfig(python=child(tmp_path, "os.kill(os.getpid(), 11)")))
    assert "killed by SIGSEGV" in str(error)


async def test_a_program_that_floods_its_stderr_keeps_its_last_lines(tmp_path: Path) -> None:
    body = (
        "sys.stderr.write('x' * 79 + '\\n' * 1)\n" * 3
        + "for i in range(50000): sys.stderr.write(f'line {i}\\n')"
    )
    error = await start(WorkerConfig(python=child(tmp_path, body)))
    assert error.stderr.endswith("line 49998\nline 49999")
    assert error.stderr.count("\n") < 120


async def test_a_warm_module_that_is_not_there() -> None:
    error = await start(WorkerConfig(warm=("no_such_module",)))
    assert "no_such_module" in error.stderr


async def test_no_room_for_more_fds(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd") if int(name) < 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
    try:
        with pytest.raises(pyrepl3.SpawnError, match="Too many open files"):
            spawn(WorkerConfig())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def test_environment_and_directory_are_the_workers(tmp_path: Path) -> None:
    config = WorkerConfig(env={"GREETING": "hello"}, cwd=str(tmp_path))
    async with pyrepl3.open_session(config=config) as session:
        result = await session.execute(
            "import os\n[os.environ['GREETING'], os.getcwd(), 'PATH' in os.environ]"
        )
    assert result.value == ["hello", str(tmp_path), True]


async def test_a_worker_leads_a_session_of_its_own() -> None:
    """Ctrl-C in the parent's terminal must not reach it."""
    async with pyrepl3.open_session() as session:
        pid = session.worker.pid
        assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)


async def test_children_of_the_code_end_with_the_worker(tmp_path: Path) -> None:
    async with pyrepl3.open_session(recovery="none") as session:
        started = await session.execute("import subprocess\nsubprocess.Popen(['sleep', '600']).pid")
        fd = os.pidfd_open(started.value)
        os.kill(session.worker.pid, signal.SIGKILL)
        with pytest.raises(pyrepl3.WorkerDied):
            await session.execute("1")
    with anyio.fail_after(5):
        await anyio.wait_readable(fd)
    os.close(fd)


async def test_reaping_ends_what_is_left_of_the_group(tmp_path: Path) -> None:
    body = (
        "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)  # both go to one pipe"
    )
    process = spawn(WorkerConfig(python=child(tmp_path, body)))
    try:
        await anyio.wait_readable(process.pipes.exit_fd)
        orphan = os.pidfd_open(int(os.read(process.pipes.stderr, 100)))
        assert process.reap().exit_code == 0
        with anyio.fail_after(5):
            await anyio.wait_readable(orphan)
        os.close(orphan)
    finally:
        process.pipes.close()


async def test_a_child_that_holds_every_pipe_open_does_not_hold_up_the_end() -> None:
    """A daemon that left the process group keeps the capture pipes open; the end does not wait for it."""
    code = (
        "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True, close_fds=False).pid"
    )
    async with pyrepl3.open_session() as session:
        daemon = (await session.execute(code)).value
    os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("count", [16, pytest.param(50, marks=pytest.mark.long)])
async def test_many_workers_at_once(count: int) -> None:
    async def one(number: int) -> int:
        async with pyrepl3.open_session() as session:
            return (await session.execute(f"{number} + 1")).value

    assert await asyncio.gather(*(one(number) for number in range(count))) == list(range(1, count + 1))
