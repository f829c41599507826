"""What this process holds: memory, fds, threads, tasks, children, temporary files."""

import asyncio
import gc
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
GRACE = 5.0
"""Seconds for threads and processes that have been told to end, to be gone."""


def resident_bytes(pid: int | str = "self") -> int:
    """Return a process's resident memory; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def settled_bytes() -> int:
    """Return our own resident memory without what only waits for the collector."""
    gc.collect()
    return resident_bytes()


def library_objects() -> Counter[str]:
    """Count the objects there are of the client's own classes."""
    gc.collect()
    # A class may have a `__module__` for its instances, which is no string, or a metaclass that answers.
    module_of = vars(type)["__module__"].__get__
    return Counter(
        type(each).__qualname__
        for each in gc.get_objects()
        if str(module_of(type(each))).startswith("pyrepl3_client")
    )


def _open_fds() -> Iterator[str]:
    for fd in list(Path("/proc/self/fd").iterdir()):
        try:
            yield f"{fd.name} -> {fd.readlink()}"
        except FileNotFoundError:
            continue  # the one that the list was read from


def _marked_processes(marks: str) -> Iterator[int]:
    """Yield the other processes that were started with `TMPDIR=marks`, also orphaned ones."""
    wanted = b"TMPDIR=" + os.fsencode(marks)
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if environ.parent.name != str(os.getpid()) and wanted in environ.read_bytes().split(b"\0"):
                yield int(environ.parent.name)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue


@dataclass(frozen=True)
class ResourceSnapshot:
    """What is held at one moment, by kind, each thing by its name."""

    fds: frozenset[str]
    threads: frozenset[str]
    tasks: frozenset[str]
    processes: frozenset[int]
    files: frozenset[str]

    @classmethod
    def now(cls, folder: str) -> "ResourceSnapshot":
        """Look; `folder` is the TMPDIR of us and of all that we start."""
        return cls(
            fds=frozenset(_open_fds()),
            threads=frozenset(f"{thread.name} {thread.ident}" for thread in threading.enumerate()),
            tasks=frozenset(
                f"{task.get_name()}: {task.get_coro()}"
                for task in asyncio.all_tasks()
                if task is not asyncio.current_task()
            ),
            processes=frozenset(_marked_processes(folder)),
            files=frozenset(str(path) for path in Path(folder).rglob("*")),
        )


async def left_behind(before: ResourceSnapshot, folder: str) -> list[str]:
    """Tell what is there now that was not there before, by kind and name.

    Threads and processes that have been told to end are waited for.
    """
    until = time.monotonic() + GRACE
    for thread in threading.enumerate():
        if f"{thread.name} {thread.ident}" not in before.threads:
            await asyncio.to_thread(thread.join, max(0.0, until - time.monotonic()))
    for pid in set(_marked_processes(folder)) - before.processes:
        _wait_for(pid, until)
    after = ResourceSnapshot.now(folder)
    left: list[str] = []
    pool = "asyncio_"  # of the loop, for this very look
    left += [f"thread: {name}" for name in after.threads - before.threads if not name.startswith(pool)]
    left += [f"task: {name}" for name in after.tasks - before.tasks]
    left += [f"process: {pid}" for pid in after.processes - before.processes]
    left += [f"temporary file: {name}" for name in after.files - before.files]
    new_fds = after.fds - before.fds
    if len(after.fds) > len(before.fds):
        left += [f"fd: {name}" for name in new_fds]
    return left


def _wait_for(pid: int, until: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll(max(0.0, until - time.monotonic()) * 1000)
    finally:
        os.close(pidfd)


@dataclass(frozen=True)
class Sample:
    """The parent's resident bytes after so many executions."""

    executions: int
    resident: int


def growth(samples: list[Sample]) -> int:
    """Return how many bytes memory grew in the second half of a run: from its third to its fourth quarter.

    Medians of quarters, since allocators take and give back in leaps; what grows with each execution
    moves the median, a leap does not.
    """
    quarter = len(samples) // 4
    third = sorted(sample.resident for sample in samples[2 * quarter : 3 * quarter])
    fourth = sorted(sample.resident for sample in samples[3 * quarter :])
    return fourth[len(fourth) // 2] - third[len(third) // 2]
