"""What a test leaves behind: processes, threads, fds and temporary files."""

import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

GRACE = 2.0
"""Seconds for threads and processes that have been told to end, to be gone."""

POOLED = ("AnyIO worker thread", "asyncio_")
"""Idle threads of a loop that a fixture of wider scope may keep running."""


@dataclass(frozen=True)
class Resources:
    """The child processes, threads, fds and temporary files that this process has at one moment."""

    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """TMPDIR, of the processes that are looked for too."""
    files: frozenset[Path] = field(init=False)
    children: frozenset[int] = field(default_factory=lambda: frozenset(child_pids()))
    threads: frozenset[threading.Thread] = field(default_factory=lambda: frozenset(own_threads()))
    fds: frozenset[int] = field(default_factory=lambda: frozenset(open_fds()))
    last_pid: int = field(default_factory=lambda: int(Path("/proc/loadavg").read_text().split()[-1]))
    """The newest pid of this machine. Pids are given in order; after the largest, from the smallest again."""

    def __post_init__(self) -> None:
        """List the temporary files."""
        object.__setattr__(self, "files", frozenset(self.folder.iterdir()))


def launchers_of_open_loops() -> Iterator[tuple[int, set[int]]]:
    """Yield the pid and the fds of each launcher that stands by for a loop of a wider scope.

    A loop keeps it for a while after its last strictly confined session, as it does idle threads.
    """
    room = sys.modules.get("pyrepl3_client._launch.standing_launcher")
    for known in [] if room is None else list(room._launchers.values()):
        launcher = known()
        if launcher is not None and launcher._process is not None:
            process = launcher._process
            yield process.popen.pid, {process.control.fileno(), process.stderr, process.exit_fd}


def child_pids() -> Iterator[int]:
    """Yield the pids of this process's children, zombies too."""
    launchers = {pid for pid, _ in launchers_of_open_loops()}
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
        if parent == os.getpid() and int(stat.parent.name) not in launchers:
            yield int(stat.parent.name)


def open_fds() -> Iterator[int]:
    """Yield this process's open fds, without the one that the list was read from."""
    launchers = {fd for _, fds in launchers_of_open_loops() for fd in fds}
    for fd in list(Path("/proc/self/fd").iterdir()):
        if int(fd.name) in launchers:
            continue
        with suppress(OSError):
            os.fstat(int(fd.name))
            yield int(fd.name)


def own_threads() -> Iterator[threading.Thread]:
    """Yield this process's threads, without those of the loops' pools."""
    return (thread for thread in threading.enumerate() if not thread.name.startswith(POOLED))


def started_since(last: int, now: int) -> Iterator[int]:
    """Yield the processes that were started after one pid was the newest and before another was."""
    if last == now:
        return
    for name in os.listdir("/proc"):
        pid = int(name) if name.isdecimal() else None
        if pid is not None and (last < pid <= now if last < now else pid > last or pid <= now):
            yield pid


def processes_with(variable: bytes, pids: Iterable[int]) -> Iterator[int]:
    """Yield those processes that were started with an environment variable, also orphaned ones."""
    for pid in pids:
        try:
            if variable in environment_of(Path(f"/proc/{pid}")).split(b"\0") and pid != os.getpid():
                yield pid
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
    """Wait until a process that is no child of this one ends. Return whether it is still there."""
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


def left_behind(before: Resources) -> list[str]:
    """Return what there is now that was not there before, in words. One thing may have replaced another.

    Processes that are found are ended, so that the next test starts clean.
    """
    until = time.monotonic() + GRACE
    left: list[str] = []
    for thread in set(own_threads()) - before.threads:
        thread.join(max(0.0, until - time.monotonic()))
    after = Resources(before.folder)
    threads = after.threads - before.threads
    if len(after.threads) > len(before.threads):
        left += [f"thread: {thread.name}" for thread in threads]
    children = after.children - before.children
    if len(after.children) > len(before.children):
        for pid in children:
            left.append(f"child process: {name_of(pid)}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    # Only these: to read the environment of every process takes 10 ms, after each of thousands of tests.
    started = started_since(before.last_pid, after.last_pid)
    for pid in set(processes_with(b"TMPDIR=" + os.fsencode(before.folder), started)) - after.children:
        if survives(pid, until):
            left.append(f"orphaned process: {name_of(pid)}")
            os.kill(pid, signal.SIGKILL)
    if len(after.fds) > len(before.fds):
        left += [f"fd: {target_of(fd)}" for fd in sorted(after.fds - before.fds)]
    left += [f"temporary file: {path.name}" for path in set(before.folder.iterdir()) - before.files]
    return left
