"""Landlock: a process gives up access to files, ports and signals, for itself and all that it starts.

It needs no privilege and no namespace. With namespaces, it is a second boundary inside them.
See landlock(7); rights that a kernel does not know are left out, and not reported as in force.
"""

from __future__ import annotations

import ctypes
import os
import stat

from pyrepl3_worker.confinement import syscalls

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_RIGHTS_TO_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RIGHTS_TO_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS_BY_ABI: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""Pairs of an ABI version and the number of rights to files that it knows."""
_BIND_TCP, _CONNECT_TCP = 1, 2
_NETWORK_ABI: Final = 4
_SCOPE_ABI: Final = 6
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2


class LandlockRules:
    """What stays accessible."""

    def __init__(
        self,
        readable: Iterable[str | int],
        writable: Iterable[str | int],
        *,
        ports_closed: bool,
        scoped: bool,
    ) -> None:
        """Keep the rules.

        Args:
            readable: paths, or fds of what is there.
            writable: as `readable`.
            ports_closed: whether no TCP port may be connected to or listened at.
            scoped: whether abstract sockets of other processes are refused; signals to them always are.
        """
        self.readable = readable
        self.writable = writable
        self.ports_closed = ports_closed
        self.scoped = scoped


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi_version() -> int:
    """Return the kernel's Landlock ABI version; 0 if it has no Landlock."""
    try:
        return syscalls.call(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict(rules: LandlockRules) -> list[str]:
    """Refuse everything except `rules` to this process and all that it starts.

    The process must have only one thread, and have set "no new privileges".

    Returns:
        What is in force then: `files`, `tcp`, `signals`, `abstract_sockets`.

    Raises:
        OSError: the kernel has no Landlock, or refused.
    """
    abi = abi_version()
    if abi == 0:
        raise OSError("the kernel has no Landlock (Linux 5.13 and lsm=landlock)")
    all_rights = (1 << max(count for known, count in _FILE_RIGHTS_BY_ABI if abi >= known)) - 1
    network = _BIND_TCP | _CONNECT_TCP if rules.ports_closed and abi >= _NETWORK_ABI else 0
    scope = 0
    if abi >= _SCOPE_ABI:
        scope = _SIGNALS | (_ABSTRACT_SOCKETS if rules.scoped else 0)
    attributes = _Ruleset(all_rights, network, scope)
    ruleset = syscalls.call(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
    try:
        for path in rules.readable:
            _add_path_rule(ruleset, path, _RIGHTS_TO_READ)
        for path in rules.writable:
            _add_path_rule(ruleset, path, all_rights)
        syscalls.call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    names = ("files", True), ("tcp", network), ("signals", scope & _SIGNALS), ("abstract_sockets", scope & 1)
    return [name for name, there in names if there]


def _add_path_rule(ruleset: int, path: str | int, rights: int) -> None:
    try:
        parent = os.dup(path) if isinstance(path, int) else os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _RIGHTS_TO_FILES
        syscalls.call(_ADD_RULE, ruleset, _RULE_PATH, _PathRule(rights, parent), 0)
    finally:
        os.close(parent)
