# ruff: noqa: E501 - a program a line reads best
"""Limits that hold for all processes of a worker together, each of which keeps to them alone."""

import asyncio
import sys
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ResourceLimits
from pyrepl3_client._launch.process_tree import ProcessTree, children_of, kill_all
from pyrepl3_schemas.executor_config import ExecutorConfig
from tests.confinement.sessions import WRITE_FORGED_FRAMES, is_working, strict_config, value
from tests.helpers.processes import ended

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
ROOMY = 200 * MEGABYTE
LEVELS = ("limits", "strict")

FAMILY = """
import mmap, os, signal, sys, time
def touched(megabytes):
    held = bytearray(megabytes << 20)
    for at in range(0, len(held), 4096): held[at] = 1
    return held
def family(size, life):
    pids = []
    for _ in range(size):
        pid = os.fork()
        if pid == 0:
            life()
            os._exit(0)
        pids.append(pid)
    for pid in pids: os.waitpid(pid, 0)
def hoard():
    held = touched(60)
    signal.pause()
def spin():
    while True: pass
def spin_a_little():
    while time.process_time() < 0.3: pass
def orphans(life):
    # Each loses its parent at once, and stays in the session.
    for _ in range(6):
        if os.fork() == 0:
            if os.fork() == 0: life()
            os._exit(0)
        os.wait()
    signal.pause()
"""
OVER_MEMORY = [
    pytest.param("family(6, hoard)", id="children that each keep to it"),
    pytest.param("family(1, lambda: family(6, hoard))", id="grandchildren"),
    pytest.param("orphans(hoard)", id="orphans"),
    pytest.param(
        "file = open('/dev/shm/' + str(os.getpid()), 'w+b')\nos.unlink(file.name)\nfile.truncate(240 << 20)\nshared = mmap.mmap(file.fileno(), 240 << 20)\nfor at in range(0, len(shared), 4096): shared[at] = 1\nsignal.pause()",
        id="shared memory, which the kernel's limit does not count",
    ),
]
OVER_CPU = [
    pytest.param("family(4, spin)", id="children that each keep to it"),
    pytest.param("while True: family(1, spin_a_little)", id="children that come and go"),
    pytest.param(
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n    try: family(1, spin_a_little)\n    except ChildProcessError: pass",
        id="children that nobody waits for",
    ),
]


async def expect_death_by_limit(code: str, config: pyrepl3.WorkerConfig, limit: str) -> None:
    """Run what goes over a limit: it costs the worker its life, and says why."""
    async with pyrepl3.open_session(config=config, recovery="none") as session:
        await session.execute(FAMILY)
        with anyio.fail_after(40), pytest.raises(pyrepl3.WorkerDied) as death:
            await session.execute(code)
    assert death.value.certificate is not None
    assert death.value.certificate.cause.startswith("limit: ")
    for part in (limit, "raise it in the ResourceLimits"):
        assert part in death.value.certificate.cause
        assert part in str(death.value)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("code", OVER_MEMORY)
async def test_memory_is_limited_for_all_together(code: str, level: Any) -> None:
    limits = ResourceLimits(max_memory_bytes=ROOMY)
    await expect_death_by_limit(
        code, strict_config(confinement=level, limits=limits), f"max_memory_bytes={ROOMY}"
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("code", OVER_CPU)
async def test_cpu_time_is_limited_for_all_together(code: str, level: Any) -> None:
    limits = ResourceLimits(max_cpu_seconds=1)
    await expect_death_by_limit(code, strict_config(confinement=level, limits=limits), "max_cpu_seconds=1")


async def test_a_session_comes_back_from_what_went_over_its_limit() -> None:
    """What has gone over it is not run again."""
    async with pyrepl3.open_session(
        config=strict_config(limits=ResourceLimits(max_memory_bytes=ROOMY))
    ) as session:
        await session.execute(f"kept = 1\n{FAMILY}")
        with anyio.fail_after(40), pytest.raises(pyrepl3.WorkerDied) as death:
            await session.execute("family(6, hoard)")
        assert death.value.attempts == 1
        assert await value(session, "kept") == 1
        assert await is_working(session)
        assert [recovery.cause.over_limit for recovery in session.recoveries if recovery.cause] == [True]


@pytest.mark.parametrize("level", LEVELS)
async def test_memory_that_a_family_shares_counts_once(level: Any) -> None:
    """Or a pool of processes over one large table would be killed."""
    code = f"{FAMILY}\nheld = touched(100)\nfamily(6, lambda: time.sleep(0.6))\n'shared'"
    config = strict_config(confinement=level, limits=ResourceLimits(max_memory_bytes=ROOMY))
    async with pyrepl3.open_session(config=config, recovery="none") as session:
        assert await value(session, code) == "shared"


async def test_what_an_idle_worker_starts_is_limited_too() -> None:
    config = strict_config(limits=ResourceLimits(max_memory_bytes=ROOMY))
    async with pyrepl3.open_session(config=config) as session:
        await session.execute(FAMILY)
        await session.execute("import threading\nthreading.Timer(0.5, family, (6, hoard)).start()")
        assert await ended(session.worker.pid)
        assert await is_working(session)
        (recovery,) = session.recoveries
        assert recovery.cause is not None
        assert "max_memory_bytes" in recovery.cause.cause


@pytest.mark.parametrize("level", LEVELS)
async def test_other_limits_hold_in_every_process(level: Any) -> None:
    limits = ResourceLimits(max_open_files=80, max_file_bytes=MEGABYTE, max_processes=400)
    code = """
import errno, os, tempfile
def outcome(deed):
    r, w = os.pipe()
    if os.fork() == 0:
        try: deed()
        except OSError as error: os.write(w, errno.errorcode[error.errno].encode())
        os._exit(0)
    os.close(w); os.wait()
    said = os.read(r, 100).decode()
    os.close(r)
    return said
def fill_fds():
    while True: os.dup(0)
def fill_file():
    with tempfile.TemporaryFile() as file:
        while True: file.write(bytes(100_000))
[outcome(fill_fds), outcome(fill_file), outcome(lambda: [outcome(fill_fds) for _ in range(5)])]
"""
    async with pyrepl3.open_session(config=strict_config(confinement=level, limits=limits)) as session:
        assert await value(session, code) == ["EMFILE", "EFBIG", ""]


@pytest.mark.parametrize("level", LEVELS)
async def test_output_is_limited_for_all_together(level: Any) -> None:
    config = strict_config(confinement=level, executor=ExecutorConfig(max_output_bytes=100_000))
    flood = "import os, signal\nfor _ in range(4):\n    if os.fork() == 0:\n        for _ in range(100): os.write(1, b'x' * 10_000)\n        os._exit(0)\nfor _ in range(4): os.wait()"
    async with pyrepl3.open_session(config=config) as session:
        result = await session.execute(flood)
        assert len(result.stdout) < 110_000
        assert "max_output_bytes=100000" in result.stdout
        assert result.truncated
        assert await is_working(session)


# --- what leaves its worker's group -------------------------------------------------------------------

IN_SESSIONS_OF_THEIR_OWN = "import os, signal, subprocess, time\n[subprocess.Popen(['sleep', '600'], start_new_session=True).pid for _ in range(3)]"


async def test_a_killed_worker_takes_children_in_sessions_of_their_own_along() -> None:
    async with pyrepl3.open_session(config=strict_config(confinement="limits"), recovery="none") as session:
        left = await value(session, IN_SESSIONS_OF_THEIR_OWN)
        # It breaks the protocol, so that we kill it.
        with anyio.fail_after(20), pytest.raises(pyrepl3.WorkerDied):
            await session.execute(
                WRITE_FORGED_FRAMES.format(frames=r"[b'\0\0\0\5hello'] * 2") + "\nsignal.pause()"
            )
        for pid in left:
            assert await ended(pid)


async def test_what_was_seen_of_a_limited_tree_ends_with_it_wherever_it_went() -> None:
    """Also where the worker ends by itself, and they are nobody's children any more."""
    config = strict_config(confinement="limits", limits=ResourceLimits(max_cpu_seconds=1000))
    async with pyrepl3.open_session(config=config, recovery="none") as session:
        left = await value(session, IN_SESSIONS_OF_THEIR_OWN)
        # It uses a second of CPU time, so that there were looks.
        with anyio.fail_after(30), pytest.raises(pyrepl3.WorkerDied):
            await session.execute("while time.process_time() < 1: pass\nos._exit(3)")
        for pid in left:
            assert await ended(pid)


# --- the tree itself ----------------------------------------------------------------------------------

PARENT = "import subprocess, sys\nchildren = [subprocess.Popen(['sleep', '600'], start_new_session=bool(n)) for n in range(3)]\nprint('ready', flush=True)\nchildren[0].wait()"


async def test_a_tree_counts_those_that_have_ended_once() -> None:
    code = "import os, time\nprint('ready', flush=True)\nfor line in os.fdopen(0):\n    if os.fork() == 0:\n        while time.process_time() < 0.3: pass\n        os._exit(0)\n    if line == 'wait\\n': os.wait()\n    print('done', flush=True)"
    root = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=-1, stdout=-1)
    assert root.stdin is not None
    assert root.stdout is not None
    await root.stdout.readline()
    tree = ProcessTree(root.pid, has_pid_namespace=False)
    before = tree.sample(full=False).cpu_seconds
    root.stdin.write(b"wait\n")
    await root.stdout.readline()
    waited = tree.sample(full=False)
    assert waited.processes == 1
    assert waited.cpu_seconds - before >= 0.25
    again = tree.sample(full=False)
    assert again.cpu_seconds == waited.cpu_seconds
    root.stdin.write_eof()
    await root.wait()
    assert tree.sample(full=False).processes == 0
    assert tree.sample(full=False).cpu_seconds >= again.cpu_seconds, "what was used does not come back"


async def test_a_tree_is_killed_with_all_its_branches() -> None:
    root = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=-1)
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        assert root.stdout is not None
        assert await root.stdout.readline() == b"ready\n"
        tree = ProcessTree(root.pid, has_pid_namespace=False)
        assert tree.sample(full=True).processes == 4
        children = children_of(root.pid)
        assert len(children) == 3
        kill_all([root.pid])
        for pid in (root.pid, *children):
            assert await ended(pid)
        assert tree.sample(full=True).processes == 0
        assert stranger.returncode is None
    finally:
        kill_all([stranger.pid])
        await stranger.wait()
        await root.wait()
