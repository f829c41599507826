"""Where workers are not forked but spawned, and how fork servers end."""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig
from pyrepl3_client._launch import fork_server_process
from pyrepl3_client._launch.fork_server import ForkServer
from tests.helpers.fork_servers import impostor, modules, opened, ready, spawn_real
from tests.helpers.processes import ended
from tests.helpers.real_sessions import lives, quick, value, works

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]

# --- where it would not be safe -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='ticker').start()",
            "'unsafe' started 1 Python thread (ticker)",
        ),
        (
            "import _thread, time\n_thread.start_new_thread(time.sleep, (600,))",
            "'unsafe' started 1 ",
        ),
        ("import socket\nkept = socket.socketpair()", "'unsafe' left fd"),
        ("kept = open(__file__)", "unsafe.py)"),
        ("import asyncio\nkept = asyncio.new_event_loop()", "'unsafe' left fd"),
        ("import mmap\nkept = mmap.mmap(-1, 4096)", "'unsafe' left shared memory mapped"),
        ("import multiprocessing\nkept = multiprocessing.Lock()", "'unsafe' left shared memory mapped"),
        ("import subprocess\nkept = subprocess.Popen(['sleep', '600'])", "'unsafe' left a child process"),
        ("raise RuntimeError('no licence')", "'unsafe' cannot be imported: RuntimeError: no licence"),
    ],
)
async def test_a_module_that_may_not_be_copied_has_workers_spawned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: str, reason: str
) -> None:
    caplog.set_level(logging.INFO, "pyrepl3.pool")
    orphan = "subprocess" in source
    config = modules(tmp_path, fine="", unsafe=source)
    async with ForkServer(config) as fork_server:
        await fork_server.wait_started()
        assert fork_server.reason is not None
        assert reason in fork_server.reason
        assert fork_server.pid is None
        assert f"workers are spawned, not forked: {fork_server.reason}" in caplog.messages
        if "licence" in source:
            with pytest.raises(pyrepl3.SpawnError, match="no licence"):
                async with opened(fork_server):
                    pass
        else:
            async with opened(fork_server) as session:
                assert await value(session, "import sys\n'unsafe' in sys.modules") is True
    if orphan:
        for pid in pids_of("sleep 600"):
            os.kill(pid, signal.SIGKILL)


def pids_of(command: str) -> list[int]:
    """Return the pids of a command whose processes have this test's own temporary folder."""
    marker = b"TMPDIR=" + os.fsencode(os.environ["TMPDIR"])
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if line == command and marker in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def test_a_module_that_is_not_there_is_named() -> None:
    async with ForkServer(replace(quick(), warm=("no_such_module",))) as fork_server:
        await fork_server.wait_started()
        assert "'no_such_module' cannot be imported" in str(fork_server.reason)
        with pytest.raises(pyrepl3.SpawnError, match="no_such_module"):
            async with opened(fork_server):
                pass


async def test_strict_confinement_is_never_forked_into() -> None:
    strict = WorkerConfig(confinement="strict", confinement_required=False, warm=("json",))
    async with ForkServer(strict) as fork_server:
        await fork_server.wait_started()
        assert fork_server.pid is None
        assert "behind their own boundary" in str(fork_server.reason)
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server, replace(strict, warm=())) as session:
            assert await value(session, "1 + 1") == 2
        assert "behind their own boundary" in str(fork_server.reason)


async def test_another_configuration_is_spawned_and_says_what_differs(tmp_path: Path) -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        others: list[tuple[WorkerConfig, str]] = [
            (replace(quick(), env={"GREETING": "hello"}), "environment differs"),
            (replace(quick(), cwd=str(tmp_path)), "directory differs"),
            (replace(quick(), warm=("decimal",), cwd=str(tmp_path)), "warm modules, directory differ"),
        ]
        for config, reason in others:
            async with opened(fork_server, config) as session:
                assert await value(session, "import os\nos.environ.get('GREETING', 'none')") == (
                    config.env or {"GREETING": "none"}
                )["GREETING"]  # fmt: skip
            assert reason in str(fork_server.reason)
        async with opened(fork_server):
            assert fork_server.reason is None


SURROUNDINGS = """
import os, sys
[os.environ["GREETING"], os.getcwd(), any(name.endswith(".forked_worker") for name in sys.modules)]
"""


async def test_surroundings_that_change_are_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = replace(quick(), confinement="none")
    async with ForkServer(config) as fork_server:
        await ready(fork_server)
        first = fork_server.pid
        monkeypatch.setenv("GREETING", "hello")
        monkeypatch.chdir(tmp_path)
        for forked in (False, True):
            async with opened(fork_server) as session:
                assert await value(session, SURROUNDINGS) == ["hello", str(tmp_path), forked]
            await ready(fork_server)
        assert fork_server.pid != first


# --- its end ------------------------------------------------------------------------------------------


async def test_workers_live_on_when_their_fork_server_is_killed_and_another_comes() -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            await session.execute("x = 42")
            first = fork_server.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            async with opened(fork_server) as meanwhile:  # the loop does not know of its end yet
                assert await value(meanwhile, "1 + 1") == 2
            await ready(fork_server)
            assert fork_server.pid != first
            async with opened(fork_server) as after:
                assert fork_server.reason is None
                assert await value(after, "1 + 1") == 2
            assert await value(session, "x") == 42
            with pytest.raises(pyrepl3.WorkerDied) as death:
                await session.execute("import os; os._exit(4)")
            assert death.value.exit_code == 4


async def test_fork_servers_that_die_again_and_again_are_given_up() -> None:
    async with ForkServer(quick()) as fork_server:
        for _ in range(3):
            await ready(fork_server)
            assert fork_server.pid is not None
            pid = fork_server.pid
            os.kill(pid, signal.SIGKILL)
            assert await ended(pid)
            async with opened(fork_server) as session:
                assert await value(session, "1 + 1") == 2
        await fork_server.wait_started()
        assert fork_server.pid is None
        assert "the fork server died" in str(fork_server.reason)


async def test_a_stopped_fork_server_is_ended_and_the_worker_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server_process, "_ANSWER_SECONDS", 0.1)
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        pid = fork_server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        async with opened(fork_server) as session:
            assert await value(session, "1 + 1") == 2
        assert not lives(pid)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            "control.send(encode_packet(NotForked(number, 'Resource temporarily unavailable')))",
            "Resource temporarily",
        ),
        ("os._exit(3)", "exit code 3"),
        ("control.send(b'nonsense')", "makes no sense"),
        ("print('help', file=sys.stderr, flush=True); os._exit(3)", "help"),
    ],
)
async def test_a_fork_that_fails_has_the_worker_spawned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: str, reason: str
) -> None:
    caplog.set_level(logging.INFO, "pyrepl3.pool")
    config = replace(quick(), python=impostor(tmp_path, answer))
    async with ForkServer(config, spawn=spawn_real) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            assert await value(session, "1 + 1") == 2
        assert reason in caplog.text


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (WorkerConfig(python="/no/such/python"), "/no/such/python"),
        (WorkerConfig(cwd="/no/such/directory"), "/no/such/directory"),
        (WorkerConfig(python="/bin/false"), "exit code 1"),
    ],
)
async def test_a_fork_server_that_cannot_start_says_why(config: WorkerConfig, reason: str) -> None:
    async with ForkServer(config) as fork_server:
        await fork_server.wait_started()
        assert reason in str(fork_server.reason)
        with pytest.raises(pyrepl3.SpawnError):
            async with opened(fork_server):
                pass


async def test_sessions_outlive_a_fork_server_that_is_closed() -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        session_context = opened(fork_server)
        session = await session_context.__aenter__()
        pid = fork_server.pid
    assert pid is not None
    assert not lives(pid)
    try:
        assert await works(session)
    finally:
        await session_context.__aexit__(None, None, None)
    async with opened(fork_server) as late:
        assert await works(late)
    assert fork_server.reason == "the fork server is closed"


async def test_a_fork_server_that_is_left_while_it_imports_leaves_nothing(tmp_path: Path) -> None:
    async with ForkServer(modules(tmp_path, slow="import time\ntime.sleep(600)")) as fork_server:
        assert fork_server.reason == "the fork server is not ready yet"
        pid = fork_server.pid
    assert pid is not None
    assert not lives(pid)


PROGRAM = """
import asyncio, sys
import pyrepl3_client as pyrepl3
async def main():
    async with pyrepl3.WorkerPool(1) as pool, pool.open_session() as session:
        print(session.worker.pid, pool._workers._fork_server.pid, flush=True)
        await session.execute("while True: pass")
asyncio.run(main())
"""


def test_fork_server_and_workers_die_with_their_program() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, cwd=ROOT) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        program.kill()
    assert len(pids) == 2
    for pid in pids:
        assert anyio.run(ended, pid)


# --- for the pool -------------------------------------------------------------------------------------


async def test_a_pool_forks_its_workers(tmp_path: Path) -> None:
    config = modules(tmp_path, told="import os\npid = os.getpid()")
    async with pyrepl3.WorkerPool(2, config, max_sessions=3) as pool:
        assert pool.spawn_reason is None
        async with pool.open_session() as one, pool.open_session() as two, pool.open_session() as three:
            told = {await value(session, "import told\ntold.pid") for session in (one, two, three)}
            assert len(told) == 1
            await one.restart()
            assert await value(one, "import told\ntold.pid") in told
    assert pool.spawn_reason == "the pool is closed"


@pytest.mark.parametrize("unsafe", [True, False])
async def test_a_pool_that_may_not_fork_spawns(tmp_path: Path, unsafe: bool) -> None:
    config = modules(
        tmp_path, told=f"import os, socket\npid = os.getpid()\nkept = {unsafe} and socket.socket()"
    )
    async with pyrepl3.WorkerPool(2, config, fork=unsafe) as pool:
        assert ("left fd" if unsafe else "told not to") in str(pool.spawn_reason)
        async with pool.open_session() as session:
            assert await value(session, "import told\ntold.pid") == session.worker.pid
