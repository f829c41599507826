"""The processes of a worker's tree, read from /proc: which they are, what they use, how to kill them.

A process belongs to the tree if the worker or a member started it, if it is in the worker's session
(setsid(2)), or if it was seen as a member before: when its own parent has ended, the tree no longer leads to
it. In a PID namespace no process is missed: one that loses its parent there becomes a child of the
namespace's init.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
_ENDED_STATES: Final = (b"Z", b"X")
_OWN: Final = (b"VmPTE", b"HugetlbPages")
"""Memory that the other figures leave out: the tables of its pages, and huge pages."""
_STOP_ROUNDS: Final = 8
"""Most rounds of looking for new processes and stopping them, before all are killed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a tree use now."""

    processes: int
    """How many processes belong to the code: the worker and what it started."""
    memory: int
    """Upper bound of their memory in bytes: a page that two share counts twice.

    `ProcessTree.proportional_memory` counts exactly."""
    cpu_seconds: float
    """CPU time that they, and the members that have ended, have used."""


@dataclass(slots=True)
class _Member:
    """A process of the tree. Its pid and its start time together identify it: pids are used again."""

    start_time: int
    """Clock ticks from the start of the machine."""
    own_ticks: int
    """CPU ticks that it has used itself."""
    reaped_ticks: int
    """CPU ticks of the children that it has waited for, with the children that those had waited for."""
    alive: bool
    """Whether it runs; False is a zombie."""


class ProcessTree:
    """A worker's process tree, which remembers its members."""

    def __init__(self, root: int, *, has_pid_namespace: bool) -> None:
        """Describe the tree below a process.

        Args:
            root: the pid of the worker's outermost process.
            has_pid_namespace: that process has a PID namespace of its own for the worker, whose init is its
                first child. Neither of the two counts as the code's.
        """
        self._root = root
        self._has_pid_namespace = has_pid_namespace
        self._members: dict[int, _Member] = {}
        self._init_pid = 0
        self._ended_ticks = 0

    def sample(self, *, full: bool) -> Usage:
        """Find the members, and return what they use.

        Costs some 50 microseconds for a worker alone, and 100 for each other process.

        Args:
            full: also look through all processes of the machine for members of the worker's session whose
                parent ended before it was seen.
        """
        before = self._members
        self._members = {}
        orphans = session_pids(self._root) if full and not self._has_pid_namespace else ()
        self._add_members([self._root, *before, *orphans], before)
        self._add_ended_ticks(before)
        ticks = sum(member.own_ticks + member.reaped_ticks for member in self._members.values())
        pids = self._user_processes()
        cpu_seconds = (ticks + self._ended_ticks) / _TICKS_PER_SECOND
        return Usage(len(pids), sum(map(_resident_bytes, pids)), cpu_seconds)

    def proportional_memory(self) -> int:
        """Return the bytes that the members hold; each page divided by the number of those that map it.

        Anonymous and shared memory counts, in the machine's memory or swapped out, and so do the tables of
        pages; files do not, since the kernel can drop them. Costs a walk through all page tables:
        milliseconds for each gigabyte.
        """
        return sum(map(_proportional_bytes, self._user_processes()))

    def kill(self) -> None:
        """Kill every member that still lives, and the processes that it has started."""
        kill_all(
            pid
            for pid, member in self._members.items()
            if start_time(pid, or_zombie=True) == member.start_time
        )

    def _user_processes(self) -> list[int]:
        """Return the pids of the living members that belong to the code."""
        return [
            pid for pid, member in self._members.items() if member.alive and not self._keeps_namespace(pid)
        ]

    def _keeps_namespace(self, pid: int) -> bool:
        """Return whether a process is the outermost one or the init of the PID namespace, not the code's."""
        if not self._has_pid_namespace:
            return False
        if not self._init_pid and _status(pid).get(b"NSpid", b"").split()[-1:] == [b"1"]:
            self._init_pid = pid
        return pid in (self._root, self._init_pid)

    def _add_members(self, todo: list[int], before: dict[int, _Member]) -> None:
        seen: set[int] = set()
        while todo:
            pid = todo.pop()
            if pid in seen:
                continue
            seen.add(pid)
            fields = _stat(pid)
            if not fields:
                continue
            began = int(fields[19])
            earlier = before.get(pid)
            if earlier is not None and earlier.start_time != began:
                continue  # another process has this pid now; if it is a member's child, it is found as one
            own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            self._members[pid] = _Member(began, own, waited, alive=fields[0] != b"Z")
            todo.extend(children_of(pid))

    def _add_ended_ticks(self, before: dict[int, _Member]) -> None:
        """Keep the CPU ticks of the members that have ended, unless another member has reaped them."""
        now = self._members
        gone = sum(member.own_ticks + member.reaped_ticks for pid, member in before.items() if pid not in now)
        if gone:
            inherited = sum(
                member.reaped_ticks - before[pid].reaped_ticks for pid, member in now.items() if pid in before
            )
            self._ended_ticks += max(0, gone - inherited)


def session_pids(session: int) -> list[int]:
    """Return the pids of a session's processes (setsid(2)). Looks at all processes of the machine."""
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry)) == session:
                    found.append(int(entry))
    return found


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, whichever of its threads started them."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            children.extend(map(int, _read(f"/proc/{pid}/task/{thread}/children").split()))
    return children


def start_time(pid: int, *, or_zombie: bool = False) -> int | None:
    """Return when a process was started, in clock ticks since boot; None when it has ended.

    Args:
        pid: its number.
        or_zombie: whether a zombie, for which its parent has not waited yet, counts as a process too.
    """
    fields = _stat(pid)
    if not fields or (fields[0] in _ENDED_STATES and not or_zombie):
        return None
    return int(fields[19])


def kill_all(pids: Iterable[int]) -> list[int]:
    """Kill processes and their descendants, in whichever session or process group they are; return them."""
    held: dict[int, int] = {}
    try:
        todo = list(pids)
        # A stopped process starts no other, but its fork may have been under way: hence several rounds.
        for _ in range(_STOP_ROUNDS):
            found = False
            while todo:
                pid = todo.pop()
                if pid not in held:
                    with suppress(OSError):
                        held[pid] = os.pidfd_open(pid)
                        found = True
                        signal.pidfd_send_signal(held[pid], signal.SIGSTOP)
                todo.extend(child for child in children_of(pid) if child not in held)
            if not found:
                break
            todo = list(held)
        for fd in held.values():
            # It may have ended, or run a set-user-id program, which may not be signalled.
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        return list(held)
    finally:
        for fd in held.values():
            os.close(fd)


def _resident_bytes(pid: int) -> int:
    return _sum_bytes(_status(pid), (b"RssAnon", b"RssShmem", b"VmSwap", *_OWN))


def _proportional_bytes(pid: int) -> int:
    rollup = _fields(_read(f"/proc/{pid}/smaps_rollup"))
    if b"Pss_Anon" not in rollup:
        # It hides itself (PR_SET_DUMPABLE), has ended, or Linux is older than 5.4.
        return _resident_bytes(pid)
    return _sum_bytes(rollup, (b"Pss_Anon", b"Pss_Shmem", b"SwapPss")) + _sum_bytes(_status(pid), _OWN)


def _sum_bytes(fields: dict[bytes, bytes], names: Iterable[bytes]) -> int:
    return sum(_kilobytes(fields.get(name, b"")) for name in names)


def _kilobytes(value: bytes) -> int:
    return int(value.split()[0]) * _KIB if value else 0


def _status(pid: int) -> dict[bytes, bytes]:
    return _fields(_read(f"/proc/{pid}/status"))


def _fields(text: bytes) -> dict[bytes, bytes]:
    return {name: value for name, _, value in (line.partition(b":") for line in text.splitlines())}


def _stat(pid: int) -> list[bytes]:
    """Return the fields of proc(5)'s stat from the third on (state, ppid, …); none when it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    """Return the content of a file of /proc; empty when its process has ended, or hides it."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
