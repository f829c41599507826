"""What every test gets: a backend, bounded property tests, and a watch over what it leaves behind."""

import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import pyrepl3_client as pyrepl3

settings.register_profile("bounded", max_examples=100, deadline=None, print_blob=True)
settings.register_profile("long", max_examples=5000, deadline=None, print_blob=True)
# `pytest --hypothesis-profile=long` overrides this.
settings.load_profile("bounded")

GRACE = 2.0
"""Seconds for threads and processes that have been told to end, to be gone."""

POOLED = ("AnyIO worker thread", "asyncio_")
"""Idle threads of a loop that a fixture of wider scope may keep running."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests and fixtures on plain asyncio, the backend our users have."""
    return "asyncio"


@pytest.fixture
async def session() -> "AsyncIterator[pyrepl3.Session]":
    """A session with a worker of its own, for one test alone."""
    import pyrepl3_client as pyrepl3  # here, so that tests of the lower rooms do without it

    async with pyrepl3.open_session() as opened:
        yield opened


# --- what a test leaves behind ------------------------------------------------------------------------


@dataclass(frozen=True)
class Belongings:
    """What this process holds now."""

    children: frozenset[int] = field(default_factory=lambda: frozenset(child_pids()))
    threads: frozenset[threading.Thread] = field(default_factory=lambda: frozenset(own_threads()))
    fds: frozenset[int] = field(default_factory=lambda: frozenset(open_fds()))
    last_pid: str = field(default_factory=lambda: Path("/proc/loadavg").read_text().split()[-1])
    """Another one than before: a process or thread was started, somewhere on this machine."""


def child_pids() -> Iterator[int]:
    """Give our children, zombies too."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return  # the usual case, and much cheaper than reading all of /proc
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything; after it come the state and the parent's pid.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            yield int(stat.parent.name)


def open_fds() -> Iterator[int]:
    """Give our open fds, without the one that the list was read from."""
    for fd in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            os.fstat(int(fd.name))
            yield int(fd.name)


def own_threads() -> Iterator[threading.Thread]:
    """Give our threads, but for the loops' pools."""
    return (thread for thread in threading.enumerate() if not thread.name.startswith(POOLED))


def processes_with(variable: bytes) -> Iterator[int]:
    """Give the processes that were started with an environment variable, whoever is their parent now."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable in environment_of(folder).split(b"\0") and folder.name != str(os.getpid()):
                yield int(folder.name)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue


def environment_of(process: Path) -> bytes:
    """Read a process's environment; while it is on its way to another program, it seems to have none."""
    until = time.monotonic() + GRACE
    while True:
        environment = (process / "environ").read_bytes()
        # Where the environment ends, counted from the state, which is the third field (proc_pid_stat(5)).
        # Neither has one yet; nor has a kernel thread or a zombie, ever.
        state, *fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        settled = environment or int(fields[47]) or state in "ZXI" or not (process / "exe").exists()
        if settled or time.monotonic() > until:
            return environment
        time.sleep(0.001)


def survives(pid: int, until: float) -> bool:
    """Wait for a process that is no child of ours to end; tell whether it still has not."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return not poller.poll(max(0.0, until - time.monotonic()) * 1000)
    finally:
        os.close(pidfd)


def name_of(pid: int) -> str:
    """Describe a process by its command line, or as the zombie that it is."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid} (gone)"
    return f"{pid} {command.strip()[:200]}" if command else f"{pid} (ended, never waited for)"


def target_of(fd: int) -> str:
    """Describe what an fd is open on."""
    try:
        return f"{fd} -> {Path(f'/proc/self/fd/{fd}').readlink()}"
    except FileNotFoundError:
        return f"{fd}, closed since"  # with the process that it was a part of


def left_behind(before: Belongings, folder: Path) -> list[str]:
    """Tell what there is now that was not there before. A thing may have taken another's place.

    What is found is ended or removed, so that the next test starts clean.
    """
    until = time.monotonic() + GRACE
    left: list[str] = []
    for thread in set(own_threads()) - before.threads:
        thread.join(max(0.0, until - time.monotonic()))
    after = Belongings()
    threads = after.threads - before.threads
    if len(after.threads) > len(before.threads):
        left += [f"thread: {thread.name}" for thread in threads]
    children = after.children - before.children
    if len(after.children) > len(before.children):
        for pid in children:
            left.append(f"child process: {name_of(pid)}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if after.last_pid != before.last_pid:
        for pid in set(processes_with(b"TMPDIR=" + os.fsencode(folder))) - after.children:
            if survives(pid, until):
                left.append(f"process that is nobody's child: {name_of(pid)}")
                os.kill(pid, signal.SIGKILL)
    if len(after.fds) > len(before.fds):
        left += [f"fd: {target_of(fd)}" for fd in sorted(after.fds - before.fds)]
    left += [f"temporary file: {path.name}" for path in folder.iterdir()]
    return left


@pytest.fixture(scope="session")
def temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test's temporary folder stands; made before TMPDIR changes for the first time."""
    return tmp_path_factory.mktemp("left")


@pytest.fixture(autouse=True)
def leaves_nothing_behind(temporary_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves processes, threads, fds or temporary files behind.

    Its own files a test keeps in `tmp_path`; what else is made in TMPDIR was meant to be temporary.
    """
    folder = Path(tempfile.mkdtemp(prefix="", dir=temporary_folders))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = Belongings()
    yield
    left = left_behind(before, folder)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
    folder.rmdir()
