"""Strict workers as clones of a launcher that stands by: the same workers, whatever happens to it."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch import standing_launcher
from pyrepl3_client._launch.process_tree import children_of
from pyrepl3_client._launch.standing_launcher import StandingLauncher, launcher_of_loop
from tests.confinement.sessions import TIMEOUT_SECONDS, is_working, strict_config, value
from tests.helpers.processes import ended

pytestmark = pytest.mark.anyio

SIGNS = """
import os, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
names = "Umask Uid Gid Groups NSpid CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp SigBlk SigIgn"
fds = sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in os.listdir("/proc/self/fd")
             if os.path.lexists(f"/proc/self/fd/{n}"))
[[status[name].strip() for name in names.split()],
 fds, sorted(os.environ), os.getcwd(), os.getsid(0), os.getpgid(0),
 [resource.getrlimit(n) for n in range(16)], sorted(os.listdir("/")), os.getpriority(os.PRIO_PROCESS, 0),
 len(open("/proc/self/mountinfo").readlines()), [n for n in os.listdir("/proc") if n.isdigit()]]
"""


def is_clone(session: pyrepl3.Session) -> bool:
    """Return whether a session's worker is a clone of this loop's launcher."""
    with open(f"/proc/{session.worker.pid}/cmdline", "rb") as file:
        return b"--stand" in file.read().split(b"\0")


def declined(*_: object) -> None:
    """Stand in for `StandingLauncher.launch`: no clone is to be had."""


async def ready_launcher() -> StandingLauncher:
    """Have a launcher stand by for this loop."""
    launcher = launcher_of_loop()
    assert launcher is not None
    while not launcher.is_ready:
        async with pyrepl3.open_session(config=strict_config()):
            with anyio.fail_after(TIMEOUT_SECONDS):
                await launcher.wait_settled()
    return launcher


def launcher_pid(launcher: StandingLauncher) -> int:
    assert launcher.pid is not None
    return launcher.pid


@pytest.fixture
async def launcher() -> StandingLauncher:
    return await ready_launcher()


async def test_a_clone_is_what_a_worker_with_a_launcher_of_its_own_is(launcher: StandingLauncher) -> None:
    async with pyrepl3.open_session(config=strict_config()) as clone:
        assert is_clone(clone)
        assert await is_working(clone)
        found = await value(clone, SIGNS), clone.worker.confinement
        # It is this process's child, and alone in its session.
        assert clone.worker.pid in children_of(os.getpid())
        assert os.getsid(clone.worker.pid) == clone.worker.pid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandingLauncher, "launch", declined)
        async with pyrepl3.open_session(config=strict_config()) as other:
            assert not is_clone(other)
            assert (await value(other, SIGNS), other.worker.confinement) == found


async def test_a_clone_ends_as_its_code_ends_it(launcher: StandingLauncher) -> None:
    for code, wanted in ("os._exit(7)", (7, None)), ("os.abort()", (None, signal.SIGABRT)):
        async with pyrepl3.open_session(config=strict_config(), recovery="none") as session:
            assert is_clone(session)
            with pytest.raises(pyrepl3.WorkerDied) as death:
                await session.execute(f"import os\n{code}")
            assert (death.value.exit_code, death.value.signal) == wanted


async def test_a_clone_has_what_its_session_gives_it(launcher: StandingLauncher, work: Path) -> None:
    """Not what the one before it had."""
    for name in ("first", "second"):
        (work / name).mkdir()
        folder = str(work / name)
        sandbox = pyrepl3.SandboxPolicy(writable=(folder,))
        config = strict_config(env={"ONLY": name}, sandbox=sandbox, cwd=folder)
        async with pyrepl3.open_session(config=config) as session:
            assert is_clone(session)
            code = f"import os\n[os.environ['ONLY'], os.getcwd(), os.listdir({str(work)!r})]"
            assert await value(session, code) == [name, folder, [name]]


async def test_hundreds_of_paths_reach_a_clone(launcher: StandingLauncher, work: Path) -> None:
    paths = [work / f"folder {number}" for number in range(260)]
    for path in paths:
        path.mkdir()
    sandbox = pyrepl3.SandboxPolicy(readable=tuple(map(str, paths)))
    async with pyrepl3.open_session(config=strict_config(sandbox=sandbox)) as session:
        assert is_clone(session)
        assert await value(session, f"import os\nlen(os.listdir({str(work)!r}))") == len(paths)


# --- what has changed since the launcher was started ------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    mask, limit = os.umask(0o22), resource.getrlimit(resource.RLIMIT_CORE)
    os.umask(mask)
    yield
    os.umask(mask)
    resource.setrlimit(resource.RLIMIT_CORE, limit)


@pytest.mark.usefixtures("restored")
async def test_what_the_program_has_changed_holds_for_the_next_worker(launcher: StandingLauncher) -> None:
    before = launcher_pid(launcher)
    os.umask(0o77)
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert await value(session, "import os\nos.umask(0o77)") == 0o77
    assert await ended(before)
    await ready_launcher()
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert is_clone(session)
        assert await value(session, "import os\nos.umask(0o77)") == 0o77


# --- its end ----------------------------------------------------------------------------------------------


async def test_a_launcher_that_was_killed_is_started_anew(launcher: StandingLauncher) -> None:
    async with pyrepl3.open_session(config=strict_config()) as earlier:
        os.kill(launcher_pid(launcher), signal.SIGKILL)
        # At once, before the loop knows of it; and its clones live on.
        async with pyrepl3.open_session(config=strict_config()) as session:
            assert not is_clone(session)
            assert await is_working(session)
        assert is_clone(earlier)
        assert await is_working(earlier)
    await ready_launcher()
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert is_clone(session)


async def test_a_launcher_that_is_killed_during_starts_costs_none(launcher: StandingLauncher) -> None:
    starting = threading.Event()
    pid = launcher_pid(launcher)

    def kill() -> None:
        starting.wait()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def one(number: int) -> int:
        if number == 3:
            starting.set()
        async with pyrepl3.open_session(config=strict_config()) as session:
            return await value(session, f"{number} + 1")

    killer = threading.Thread(target=kill)
    killer.start()
    assert await asyncio.gather(*map(one, range(8))) == list(range(1, 9))
    await asyncio.to_thread(killer.join)
    # None of its clones that no session had is left: the fixture of every test looks for children.


@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.long)])
async def test_many_clones_at_once(launcher: StandingLauncher, count: int) -> None:
    async def one(number: int) -> tuple[bool, int]:
        async with pyrepl3.open_session(config=strict_config()) as session:
            return is_clone(session), await value(session, f"{number} + 1")

    assert await asyncio.gather(*map(one, range(count))) == [(True, number + 1) for number in range(count)]


async def test_a_launcher_that_is_stopped_is_killed_and_costs_no_session(
    launcher: StandingLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_launcher, "_ANSWER_SECONDS", 0.3)
    pid = launcher_pid(launcher)
    os.kill(pid, signal.SIGSTOP)
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert not is_clone(session)
        assert await is_working(session)
    assert await ended(pid)


async def test_a_launcher_ends_when_it_has_had_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = launcher_of_loop()
    assert launcher is not None
    if launcher.pid is not None:
        os.kill(launcher.pid, signal.SIGKILL)
        assert await ended(launcher.pid)
        await asyncio.sleep(0)
    monkeypatch.setattr(standing_launcher, "_IDLE_SECONDS", 0)
    async with pyrepl3.open_session(config=strict_config()):
        await launcher.wait_settled()
        assert launcher.pid is None or await ended(launcher.pid)
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert await is_working(session)


async def test_where_no_launcher_can_stand_by_each_worker_has_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(standing_launcher, "launcher_command", lambda: ["/bin/sh", "-c", "echo no; exit 3"])
    monkeypatch.setattr(standing_launcher, "_failures", [])
    with caplog.at_level("INFO", "pyrepl3.worker"):
        launcher = launcher_of_loop()
        assert launcher is not None
        for _ in range(3):
            async with pyrepl3.open_session(config=strict_config()) as session:
                assert not is_clone(session)
                with anyio.fail_after(TIMEOUT_SECONDS):
                    await launcher.wait_settled()
                assert await is_working(session)
        assert caplog.text.count("no launcher stands by") == 3
        async with pyrepl3.open_session(config=strict_config()) as session:
            assert not is_clone(session)
            await launcher.wait_settled()
    assert caplog.text.count("no launcher stands by") == 3


async def test_a_launcher_that_is_killed_before_it_is_ready_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = ["before"]
    killed: list[int] = []
    start = standing_launcher._start_process  # pyright: ignore[reportPrivateUsage] - what starts it

    def start_and_kill_the_first() -> object:
        process = start()
        if not killed:
            killed.append(process.popen.pid)
            os.kill(process.popen.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(standing_launcher, "_failures", failures)
    monkeypatch.setattr(standing_launcher, "_start_process", start_and_kill_the_first)
    launcher = launcher_of_loop()
    assert launcher is not None
    if launcher.pid is not None:
        os.kill(launcher.pid, signal.SIGKILL)
        assert await ended(launcher.pid)
    with anyio.fail_after(TIMEOUT_SECONDS):
        while len(failures) < 2:
            async with pyrepl3.open_session(config=strict_config()):
                await launcher.wait_settled()
    assert killed
    await ready_launcher()
    assert failures == []


# --- programs ---------------------------------------------------------------------------------------------

HEAD = """
import asyncio, gc, os, signal, sys, threading
import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from pyrepl3_client._launch.standing_launcher import launcher_of_loop
CONFIG = pyrepl3.WorkerConfig(confinement="strict")
async def clone():
    async with pyrepl3.open_session(config=CONFIG):
        await launcher_of_loop().wait_settled()
    return await pyrepl3.open_session(config=CONFIG).__aenter__()
def told(session):
    # In one piece: a forked program writes to the same pipe.
    os.write(1, f"{session.worker.pid} {launcher_of_loop().pid}\\n".encode())
async def opened():
    session = await pyrepl3.open_session(config=CONFIG).__aenter__()
    told(session)
    await session.close()
    return launcher_of_loop().pid
def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file: return file.read().split()
"""


async def run_program(body: str) -> tuple[int, str]:
    """Run a program; return its exit status and what it printed."""
    process = await anyio.run_process(
        [sys.executable, "-W", "error", "-c", HEAD + body], check=False, stderr=subprocess.STDOUT
    )
    return process.returncode, process.stdout.decode()


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "return"])
async def test_a_program_that_ends_without_closing_leaves_no_process(end: str) -> None:
    body = f"""
async def main():
    told(await clone())
    {end}
asyncio.run(main())
"""
    _, printed = await run_program(body)
    pids = [int(word) for word in printed.split()[:2]]
    assert len(pids) == 2
    for pid in pids:
        assert await ended(pid)


async def test_a_loop_that_is_closed_has_no_launcher_left() -> None:
    body = """
async def main():
    session = await clone()
    pid = launcher_of_loop().pid
    assert str(pid) in children()
    await session.close()
before = len(os.listdir("/proc/self/fd"))
asyncio.run(main())
try: print(os.wait())
except ChildProcessError: print("none", len(os.listdir("/proc/self/fd")) - before)
"""
    assert await run_program(body) == (0, "none 0\n")


async def test_a_forked_program_leaves_its_parents_launcher_alone() -> None:
    body = """
async def main():
    session = await clone()
    pid = launcher_of_loop().pid
    child = os.fork()
    if child == 0:
        status = 1
        try:
            gc.collect()
            asyncio.run(opened())
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert launcher_of_loop().pid == pid
    assert (await session.execute("1 + 1")).value == 2
    async with pyrepl3.open_session(config=CONFIG) as other:
        told(other)
    await session.close()
child = os.fork()  # and what is forked before has its own
asyncio.run(main())
if child: sys.exit(os.waitpid(child, 0)[1])
"""
    status, printed = await run_program(body)
    assert status == 0, printed
    # One for each of the two programs; their children have none, or another by then.
    pids = [line.split()[1] for line in printed.splitlines()]
    assert len(pids) == 4
    assert len(set(pids) - {"None"}) == 4 - pids.count("None")


async def test_a_start_that_was_interrupted_leaves_no_clone() -> None:
    """Ctrl-C while the launcher is asked: what it makes then is ended when it says so."""
    body = """
def interrupt(*_): raise KeyboardInterrupt
loop = asyncio.new_event_loop()
loop.run_until_complete(loop.run_until_complete(clone()).close())
pid = loop.run_until_complete(opened())
fds = len(os.listdir("/proc/self/fd"))
signal.signal(signal.SIGALRM, interrupt)
os.kill(pid, signal.SIGSTOP)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try: loop.run_until_complete(opened())
except KeyboardInterrupt: pass
else: print("not interrupted")
os.kill(pid, signal.SIGCONT)
assert pid == loop.run_until_complete(opened())
assert children() == [str(pid)], children()
loop.run_until_complete(loop.shutdown_asyncgens())
gc.collect()  # the frames that were interrupted
assert len(os.listdir("/proc/self/fd")) == fds
loop.close()
assert children() == []
"""
    status, printed = await run_program(body)
    assert status == 0, printed
    assert len(printed.splitlines()) == 2


async def test_loops_of_several_threads_have_launchers_of_their_own() -> None:
    """The end of one is not the end of another one's workers."""
    body = """
pids, end = [], threading.Event()
async def other():
    session = await clone()
    pids.append(launcher_of_loop().pid)
    await session.close()
async def main():
    session = await clone()
    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start(); await asyncio.to_thread(thread.join)
    assert pids[0] not in (None, launcher_of_loop().pid)
    with sync.open_session(config=CONFIG) as blocking:
        assert blocking.execute("2 + 2").value == 4
    assert (await session.execute("1 + 1")).value == 2
    await session.close()
    print("done")
asyncio.run(main())
"""
    assert await run_program(body) == (0, "done\n")


async def test_a_launcher_has_nothing_of_the_program(launcher: StandingLauncher) -> None:
    pid = launcher_pid(launcher)
    async with pyrepl3.open_session(config=strict_config(env={"SECRET": "of a session"})) as session:
        assert is_clone(session)
        # No process of the same user may look into it.
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
        if os.geteuid() != 0:
            return
        variables = await anyio.Path(f"/proc/{pid}/environ").read_bytes()
        assert b"SECRET" not in variables
        assert b"HOME=" not in variables
        fds = sorted(os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd"))
        assert [fd.partition(":")[0] for fd in fds] == ["/dev/null", "/dev/null", "pipe", "socket"]
