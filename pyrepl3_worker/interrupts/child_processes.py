"""Watches what starts and ends processes; kills the child processes of an execution that is cancelled."""

import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress

# By name: the code may have replaced the modules' own.
from os import P_ALL, WEXITED, WNOHANG, WNOWAIT, getpid, kill, listdir, sysconf, waitid
from os.path import exists
from signal import SIGKILL
from typing import Any, Final

from pyrepl3_schemas.constants import WAKEUP_SIGNAL

_open: Final = open
SPAWN_EVENTS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}
)
"""Audit events before a process is started, or becomes another program."""
_SEND_EVENTS: Final = frozenset({"os.kill", "os.killpg", "signal.pthread_kill"})
"""Audit events before a signal is sent."""
_WATCHED: Final = SPAWN_EVENTS | _SEND_EVENTS


def watch_processes(stderr: int, *prepare: Callable[[], None]) -> None:
    """Have functions called whenever Python code is about to start a process, in that code's thread.

    What was printed must go out then, since what the child writes to fd 1 comes after it. And take note on
    `stderr` when the code is about to end this process by a signal.
    """
    worker = getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _WATCHED:
            return
        if event in SPAWN_EVENTS:
            for each in prepare:
                each()
            return
        if arguments[-1] == WAKEUP_SIGNAL:
            return  # our own
        with suppress(ImportError, TypeError, ValueError, OverflowError):  # the signal is sent in any case
            from pyrepl3_worker.interrupts.own_signals import note_event

            note_event(stderr, worker, event, arguments)

    sys.addaudithook(hook)


def kill_children(started_after: float, older_children: AbstractSet[int] | None = None) -> list[int]:
    """Kill the child processes (and theirs) that began after a time, and return their pids.

    Args:
        started_after: seconds on CLOCK_BOOTTIME.
        older_children: pids that existed before the first child after that time was started, if one was.
            Start times count in clock ticks of 10 ms, and so don't tell what came first within one.
    """
    if not _has_children():
        return []
    frequency = sysconf("SC_CLK_TCK")
    to_kill: list[int] = []
    unvisited: list[int] = []
    for pid in children_of(getpid()):
        tick = _start_time(pid, frequency)
        in_doubt = tick < started_after <= tick + 1 / frequency
        if tick >= started_after or (in_doubt and older_children is not None and pid not in older_children):
            unvisited.append(pid)
    while unvisited:
        pid = unvisited.pop()
        to_kill.append(pid)
        unvisited.extend(children_of(pid))
    for pid in to_kill:
        try:
            kill(pid, SIGKILL)
        except ProcessLookupError:
            continue
    return to_kill


def _has_children() -> bool:
    """Return whether there is a child, running or not yet waited for: one system call, cheaper than /proc."""
    try:
        waitid(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT)
    except ChildProcessError:
        return False
    return True


def living_children() -> frozenset[int]:
    """Return the pids of this process's children; none if they cannot be read."""
    try:
        return frozenset(children_of(getpid())) if _has_children() else frozenset()
    except OSError:  # no fd is left, say
        return frozenset()


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, whichever of its threads started them."""
    children: list[int] = []
    try:
        for thread in listdir(f"/proc/{pid}/task"):
            with _open(f"/proc/{pid}/task/{thread}/children", "rb") as listing:
                children.extend(map(int, listing.read().split()))
    except FileNotFoundError:
        # The process ended while we looked, or the kernel was built without PROC_CHILDREN.
        return children if exists("/proc/self/task") and _has_listing() else _scan_proc(pid)
    except ProcessLookupError:
        return children
    return children


def _has_listing() -> bool:
    return exists(f"/proc/self/task/{getpid()}/children")


def _scan_proc(parent: int) -> list[int]:
    """Return the pids of a process's children by reading the parent of every process."""
    pids = [int(entry) for entry in listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if (fields := _read_stat(pid)) and int(fields[1]) == parent]


def _read_stat(pid: int) -> list[bytes]:
    """Return the fields of proc(5)'s stat from the third on (state, ppid, …); none when it has ended."""
    try:
        with _open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _start_time(pid: int, frequency: int) -> float:
    fields = _read_stat(pid)
    return int(fields[19]) / frequency if fields else 0.0
