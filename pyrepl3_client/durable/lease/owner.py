"""Who owns a session: one opening of it, by one process, on one boot of one machine.

By the name another process on the same machine can tell whether that owner still lives, and a person can
find it.
"""

import os
import secrets
import socket
from pathlib import Path
from typing import Final

from pyrepl3_client._launch.process_tree import start_time

_SEPARATOR: Final = "/"
_PART_COUNT: Final = 6
_ended_owners: Final[set[str]] = set()
"""Owners of this process that have ended, and could not record it in their store."""


def current_owner() -> str:
    """Name a new owner: `{host}/{pid}/{start time}/{boot}/{pid namespace}/{random}`."""
    pid = os.getpid()
    started = start_time(pid)
    parts = (
        socket.gethostname().replace(_SEPARATOR, "-"),
        str(pid),
        "" if started is None else str(started),
        _boot_id(),
        _pid_namespace(),
        secrets.token_hex(6),
    )
    return _SEPARATOR.join(parts)


def mark_ended(owner: str) -> None:
    """Record here that an owner of this process has ended, whatever its store holds."""
    _ended_owners.add(owner)


def is_dead(owner: str, *, one_machine: bool) -> bool:
    """Return whether an owner is known to be gone.

    False when that cannot be told: it ran on another machine, or where process ids mean something else (a
    container of its own). Its lease has to lapse then.

    Args:
        owner: as `current_owner` names it.
        one_machine: whether the store can be used by one machine only, as an SQLite file with its shared
            memory can. An owner of another boot is of this machine then, from before its restart.
    """
    if owner in _ended_owners:
        return True
    parts = owner.split(_SEPARATOR)
    if len(parts) != _PART_COUNT:
        return False
    _, pid, started, boot, namespace, _ = parts
    here = _boot_id()
    if not (pid.isdecimal() and started and boot and here):
        return False
    if boot != here:
        return one_machine
    return bool(namespace) and namespace == _pid_namespace() and not _lives(int(pid), started)


def _lives(pid: int, started: str) -> bool:
    """Return whether a process lives that was started then; its number may be another process's by now.

    True when `/proc` cannot be read (no fd is left, say): an owner must not be taken for dead by mistake.
    """
    try:
        now = start_time(pid)
    except OSError:
        return True
    return now is not None and str(now) == started


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
