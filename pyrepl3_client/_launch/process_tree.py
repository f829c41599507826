"""The processes of a worker's tree as the parent sees them in /proc: who they are, what they use, their end.

A process belongs to the tree if the worker or a member started it, if it is of the worker's session, or if it
was seen as a member before: one whose own parent has ended is nobody's child that we know. Behind a PID
namespace nothing is missed, for whoever loses its parent there becomes a child of the namespace's init.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
_STOP_ROUNDS: Final = 8
"""How often new members are looked for before all are killed; each is stopped when it is found."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree uses now."""

    processes: int
    """Those of the code's: the worker and what it started."""
    memory: int
    """Most bytes that they may hold: what two share counts twice. `Tree.memory` counts exactly."""
    cpu_seconds: float
    """CPU time that they have used, and those that have ended."""


@dataclass(slots=True)
class _Member:
    """A process, by its number and the time of its beginning: together they name one process alone."""

    start_time: int
    own_ticks: int
    """Ticks that it has used itself."""
    reaped_ticks: int
    """Ticks that its children had used, theirs included, which it has waited for."""
    alive: bool
    """Or is a zombie."""


class ProcessTree:
    """A worker's process tree, which remembers its members."""

    def __init__(self, root: int, *, has_pid_namespace: bool) -> None:
        """Begin at a process. `kept`: it keeps a PID namespace, and its own first child is the init there."""
        self._root = root
        self._has_pid_namespace = has_pid_namespace
        self._members: dict[int, _Member] = {}
        self._init_pid = 0
        self._ended_ticks = 0

    def sample(self, *, full: bool) -> Usage:
        """See who is there; `widely`: also whoever is of the session and has lost its parent unseen.

        Costs some 50 microseconds for a worker alone, and 100 for each other process.
        """
        before = self._members
        self._members = {}
        self._add_members(
            [self._root, *before, *(self._session_pids() if full and not self._has_pid_namespace else ())],
            before,
        )
        self._add_ended_ticks(before)
        used = (
            sum(member.own_ticks + member.reaped_ticks for member in self._members.values())
            + self._ended_ticks
        )
        code = self._user_processes()
        return Usage(len(code), sum(map(_resident_bytes, code)), used / _TICKS_PER_SECOND)

    def proportional_memory(self) -> int:
        """Give the bytes that the members hold, each page shared out among those who map it.

        Anonymous and shared memory, in the machine's memory or swapped out; not files, which the kernel can
        drop. Costs a walk through all page tables: milliseconds for each gigabyte.
        """
        return sum(map(_proportional_bytes, self._user_processes()))

    def kill(self) -> None:
        """Kill every member that is still there, and what those have started."""
        kill_all(pid for pid, member in self._members.items() if _began(pid) == member.start_time)

    def _user_processes(self) -> list[int]:
        """Give the members that live, without those that are ours."""
        return [
            pid for pid, member in self._members.items() if member.alive and not self._is_keeper_or_init(pid)
        ]

    def _is_keeper_or_init(self, pid: int) -> bool:
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
                continue  # the number is another's now, of whom we know nothing; a child is found again
            own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            self._members[pid] = _Member(began, own, waited, alive=fields[0] != b"Z")
            todo.extend(children_of(pid))

    def _add_ended_ticks(self, before: dict[int, _Member]) -> None:
        """Keep what those had used that are gone, as far as nobody has waited for them."""
        now = self._members
        gone = sum(member.own_ticks + member.reaped_ticks for pid, member in before.items() if pid not in now)
        if gone:
            inherited = sum(
                member.reaped_ticks - before[pid].reaped_ticks for pid, member in now.items() if pid in before
            )
            self._ended_ticks += max(0, gone - inherited)

    def _session_pids(self) -> Iterable[int]:
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(ProcessLookupError, PermissionError):
                    if os.getsid(int(entry)) == self._root:
                        yield int(entry)


def children_of(pid: int) -> list[int]:
    """Give the pids of a process's children, whichever of its threads started them."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            children.extend(map(int, _read(f"/proc/{pid}/task/{thread}/children").split()))
    return children


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes and whatever descends from them, in whichever session or group."""
    held: dict[int, int] = {}
    try:
        todo = list(pids)
        # Stopped, none can start another, but one whose fork was under way: hence several rounds.
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
            # It may have ended, or be a set-user-id program's, out of our reach.
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        for fd in held.values():
            os.close(fd)


def _resident_bytes(pid: int) -> int:
    status = _status(pid)
    return sum(_kilobytes(status.get(name, b"")) for name in (b"RssAnon", b"RssShmem", b"VmSwap"))


def _proportional_bytes(pid: int) -> int:
    rollup = _fields(_read(f"/proc/{pid}/smaps_rollup"))
    if b"Pss_Anon" not in rollup:
        return _resident_bytes(
            pid
        )  # it hides itself (PR_SET_DUMPABLE), has ended, or Linux is older than 5.4
    return sum(_kilobytes(rollup.get(name, b"")) for name in (b"Pss_Anon", b"Pss_Shmem", b"SwapPss"))


def _kilobytes(value: bytes) -> int:
    return int(value.split()[0]) * _KIB if value else 0


def _status(pid: int) -> dict[bytes, bytes]:
    return _fields(_read(f"/proc/{pid}/status"))


def _fields(text: bytes) -> dict[bytes, bytes]:
    return {name: value for name, _, value in (line.partition(b":") for line in text.splitlines())}


def _stat(pid: int) -> list[bytes]:
    """Give the fields of proc(5)'s stat from the third on (state, ppid, …); none when it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _began(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else -1


def _read(path: str) -> bytes:
    """Give a file of /proc; nothing when its process has ended, or hides it."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
