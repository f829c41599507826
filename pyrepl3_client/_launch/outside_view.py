"""Which parts of a worker's confinement are to be seen from outside: it is not believed what it says of them.

Code that runs at its interpreter's start can have written its `ready` message. So a part is in force only if
/proc shows it of the process itself (proc(5), namespaces(7)).
"""

import os
from collections.abc import Callable, Iterable
from typing import Final

from pyrepl3_client._launch.process_tree import children_of
from pyrepl3_client.config import WorkerConfig

_CAPABILITY_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapAmb")
type _Sign = Callable[[int, dict[str, str]], bool]
"""Whether something is to be seen of a process, given its pid and what its `status` says."""
_BY_LANDLOCK: Final = ("files", "network")


def unseen(claimed: Iterable[str], outermost: int, config: WorkerConfig) -> tuple[str, ...]:
    """Return those parts of a confinement that a worker claims, and that are not to be seen of it.

    Args:
        claimed: what it says is in force.
        outermost: the pid of its outermost process, which this program has started.
        config: how it was to be confined.
    """
    strict = config.confinement == "strict"
    worker = _worker_of(outermost) if strict else outermost
    # Without namespaces Landlock keeps these two, of which /proc shows nothing.
    hidden = _BY_LANDLOCK if strict and not config.confinement_required else ()
    try:
        status = _status(worker)
    except OSError:
        status = dict[str, str]()
    return tuple(
        name for name in claimed if name in _SIGNS and name not in hidden and not _seen(name, worker, status)
    )


def _seen(name: str, pid: int, status: dict[str, str]) -> bool:
    try:
        return _SIGNS[name](pid, status)
    except (OSError, KeyError, ValueError):
        return False  # it has ended, or hides itself, which none of our workers does


def _worker_of(outermost: int) -> int:
    """Return the process that runs code: the outermost one, or its child that is not the namespace's init."""
    for child in children_of(outermost):
        try:
            numbers = _status(child)["NSpid"].split()
        except (OSError, KeyError):
            continue
        if len(numbers) > 1 and numbers[-1] != "1":
            return child
    return outermost


def _has_filter(_: int, status: dict[str, str]) -> bool:
    return status["Seccomp"] == "2"


def _cannot_gain_privileges(_: int, status: dict[str, str]) -> bool:
    return status["NoNewPrivs"] == "1"


def _has_no_capability(_: int, status: dict[str, str]) -> bool:
    return all(int(status[name], 16) == 0 for name in _CAPABILITY_SETS)


def _has_own_root(pid: int, _: dict[str, str]) -> bool:
    return not os.path.samestat(os.stat("/"), os.stat(f"/proc/{pid}/root/"))


def _has_own(kind: str) -> _Sign:
    def differs(pid: int, _: dict[str, str]) -> bool:
        return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")

    return differs


_SIGNS: Final[dict[str, _Sign]] = {
    "system_calls": _has_filter,
    "no_new_privs": _cannot_gain_privileges,
    "no_capabilities": _has_no_capability,
    "files": _has_own_root,
    "processes": _has_own("pid"),
    "network": _has_own("net"),
}
"""What is to be seen, by the names in `ready`, where the boundary is whole."""


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}
