"""System calls that Python has no functions for, with the kernel's errors as exceptions."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Final

TABLE_COLUMNS: Final = {"x86_64": 0, "aarch64": 1}
"""The machines whose call numbers are known here, with their columns in tables of numbers."""

AT_FDCWD: Final = -100
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECUREBITS_NO_ROOT: Final = 0b1111_1111 & ~0b0011_0000
"""SECBIT_NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, locked: uid 0 has no privileges then."""
_CAPABILITY_VERSION: Final = 0x20080522
_MAX_CAPABILITIES: Final = 64

_PIVOT_ROOT: Final = (155, 41)
_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_MOUNT_SETATTR: Final = 442

_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
ATTR_RDONLY: Final = 1
ATTR_NOSUID: Final = 2
ATTR_NODEV: Final = 4
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def table_column() -> int:
    """Return this machine's column in tables of system calls.

    Raises:
        OSError: the call numbers of this machine are not known.
    """
    machine = os.uname().machine
    if machine not in TABLE_COLUMNS or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(f"system calls of {machine} are not known here")
    return TABLE_COLUMNS[machine]


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """Make a system call; return its result.

    Args:
        number: the call's number.
        arguments: integers are passed as they are, everything else by its address.

    Raises:
        OSError: the kernel refused.
    """
    passed = [
        ctypes.c_long(argument)
        if isinstance(argument, int)
        else ctypes.byref(argument)
        if isinstance(argument, ctypes.Structure)
        else argument
        for argument in arguments
    ]
    return check_result(_libc.syscall(ctypes.c_long(number), *passed))


def check_result(result: int) -> int:
    """Return the result of a call; raise OSError with the present errno if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int | ctypes.Structure) -> int:
    """Call prctl(2); arguments that are left out are 0."""
    passed = [
        ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_ulong(argument)
        for argument in (*arguments, 0, 0, 0, 0)[:4]
    ]
    return check_result(_libc.prctl(option, *passed))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Call mount(2)."""
    check_result(
        _libc.mount(
            source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
        )
    )


def make_overlay(shown: int, empty: int) -> int:
    """Return an fd of a detached, read-only overlay that shows one folder.

    Args:
        shown: an fd of the folder.
        empty: an fd of an empty one: the kernel wants two.
    """
    context = call(_FSOPEN, b"overlay", _FSOPEN_CLOEXEC)
    try:
        # By their fds, for a path may hold commas and colons.
        lower = f"/proc/self/fd/{shown}:/proc/self/fd/{empty}"
        call(_FSCONFIG, context, _SET_STRING, b"lowerdir", lower.encode(), 0)
        call(_FSCONFIG, context, _SET_FLAG, b"userxattr", None, 0)
        call(_FSCONFIG, context, _CREATE, None, None, 0)
        return call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    finally:
        os.close(context)


def open_tree_at(fd: int) -> int:
    """Return an fd of a detached copy of the mounts at and below what another fd is open on."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH | os.O_CLOEXEC
    return call(_OPEN_TREE, fd, b"", flags)


def attach_tree_at(tree: int, fd: int) -> None:
    """Mount a detached mount at what another fd is open on."""
    call(_MOVE_MOUNT, tree, b"", fd, b"", MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def open_tree(path: str) -> int:
    """Return an fd of a detached copy of the mounts at and below a path."""
    return call(_OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC)


def attach_tree(tree: int, path: str) -> None:
    """Mount a copy that `open_tree` returned at a path."""
    call(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)


def set_mount_attributes(tree: int, attributes: int, *, recursive: bool = True) -> None:
    """Set attributes of a mount; also of all mounts below it, if `recursive`."""
    attributes_struct = _MountAttr(attributes, 0, 0, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    call(_MOUNT_SETATTR, tree, b"", flags, attributes_struct, ctypes.sizeof(attributes_struct))


def detach_mount(path: str) -> None:
    """Unmount the mount at a path (MNT_DETACH)."""
    check_result(_libc.umount2(os.fsencode(path), _MNT_DETACH))


def pivot_root() -> None:
    """Make the current directory, which must be a mount, the root, and unmount the old root."""
    call(_PIVOT_ROOT[table_column()], b".", b".")
    check_result(_libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up all capabilities irrevocably: also for uid 0, and for every program it executes."""
    prctl(PR_SET_SECUREBITS, _SECUREBITS_NO_ROOT)
    for capability in range(_MAX_CAPABILITIES):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the kernel has no more
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    check_result(_libc.capset(header, nothing))
