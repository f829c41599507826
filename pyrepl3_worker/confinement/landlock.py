"""Landlock: a process gives up what it may reach, for itself and all that it will ever start.

Needs no privilege and no namespace. Where there are namespaces it is the second wall behind them.
See landlock(7); rights that a kernel does not know are left out, and reported as not in force.
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from typing import Final

import msgspec

from pyrepl3_worker.confinement import syscalls

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH: Final = 1
_RULE_PORT: Final = 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FILE_ONLY: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which ABI on how many of the rights to files are known."""
_BIND_TCP, _CONNECT_TCP = 1, 2
_NETWORK_ABI: Final = 4
_SCOPE_ABI: Final = 6
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2


class LandlockRules(msgspec.Struct, frozen=True):
    """What stays within reach."""

    readable: Iterable[str]
    writable: Iterable[str]
    tcp_ports: Iterable[int] | None
    """Ports to connect to, and none to listen at; None: as the namespace allows."""
    scoped: bool
    """Whether abstract sockets outside are out of reach; signals always are."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("rights", ctypes.c_uint64), ("port", ctypes.c_uint64))


def version() -> int:
    """Give the kernel's Landlock ABI, 0 where there is none."""
    try:
        return syscalls.call(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict(access: LandlockRules) -> list[str]:
    """Give up all but `access`, for this process (of one thread, without new privileges) and its children.

    Returns:
        What is in force: `files`, `tcp`, `signals`, `abstract_sockets`.

    Raises:
        OSError: the kernel has no Landlock, or refused.
    """
    abi = version()
    if abi == 0:
        raise OSError("the kernel has no Landlock (Linux 5.13 and lsm=landlock)")
    every = (1 << max(count for known, count in _RIGHTS if abi >= known)) - 1
    ports = access.tcp_ports if abi >= _NETWORK_ABI else None
    network = 0 if ports is None else _BIND_TCP | _CONNECT_TCP
    scope = 0
    if abi >= _SCOPE_ABI:
        scope = _SIGNALS | (_ABSTRACT_SOCKETS if access.scoped else 0)
    form = _Ruleset(every, network, scope)
    ruleset = syscalls.call(_CREATE_RULESET, form, ctypes.sizeof(form), 0)
    try:
        for path in access.readable:
            _allow(ruleset, path, _READ)
        for path in access.writable:
            _allow(ruleset, path, every)
        for port in ports or ():
            syscalls.call(_ADD_RULE, ruleset, _RULE_PORT, _PortRule(_CONNECT_TCP, port), 0)
        syscalls.call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    names = ("files", True), ("tcp", network), ("signals", scope & _SIGNALS), ("abstract_sockets", scope & 1)
    return [name for name, there in names if there]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _FILE_ONLY
        syscalls.call(_ADD_RULE, ruleset, _RULE_PATH, _PathRule(rights, parent), 0)
    finally:
        os.close(parent)
