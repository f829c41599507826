"""System calls that Python has no function for, with the kernel's errors as exceptions."""

import ctypes
import os
from typing import Final

MACHINES: Final = {"x86_64": 0, "aarch64": 1}
"""Machines whose system calls are known here, by their column in tables of numbers."""

AT_FDCWD: Final = -100
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECURE_NO_ROOT: Final = 0b1111_1111 & ~0b0011_0000
"""SECBIT_NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, locked: uid 0 means nothing special."""
_CAPABILITY_VERSION: Final = 0x20080522
_MOST_CAPABILITIES: Final = 64

_PIVOT_ROOT: Final = (155, 41)
_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_MOUNT_SETATTR: Final = 442

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


class _Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def column() -> int:
    """Give this machine's column in tables of system calls.

    Raises:
        OSError: the machine's numbers are not known.
    """
    machine = os.uname().machine
    if machine not in MACHINES or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(f"system calls of {machine} are not known here")
    return MACHINES[machine]


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """Make a system call; integers are passed as they are, everything else by its address.

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
    return checked(_libc.syscall(ctypes.c_long(number), *passed))


def checked(result: int) -> int:
    """Raise what the last call left in errno, if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int | ctypes.Structure) -> int:
    """Call prctl(2), the arguments that are left out being 0."""
    passed = [
        ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_ulong(argument)
        for argument in (*arguments, 0, 0, 0, 0)[:4]
    ]
    return checked(_libc.prctl(option, *passed))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Call mount(2)."""
    checked(
        _libc.mount(
            source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
        )
    )


def open_tree(path: str) -> int:
    """Give a copy of the mounts at and below a path, not yet to be seen anywhere, as an fd."""
    return call(_OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC)


def place_tree(tree: int, path: str) -> None:
    """Put such a copy at a path."""
    call(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)


def set_mount(tree: int, attributes: int, *, recursive: bool = True) -> None:
    """Set attributes of a mount, and of everything below it."""
    form = _Attributes(attributes, 0, 0, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    call(_MOUNT_SETATTR, tree, b"", flags, form, ctypes.sizeof(form))


def discard(path: str) -> None:
    """Take away the mount at a path."""
    checked(_libc.umount2(os.fsencode(path), _MNT_DETACH))


def enter_root() -> None:
    """Make the current directory, a mount, the root; let go of what was the root before."""
    call(_PIVOT_ROOT[column()], b".", b".")
    checked(_libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, for good: also for uid 0 and whatever it executes."""
    prctl(PR_SET_SECUREBITS, _SECURE_NO_ROOT)
    for capability in range(_MOST_CAPABILITIES):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the kernel has no more
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    checked(_libc.capset(header, nothing))
