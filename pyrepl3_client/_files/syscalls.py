"""System calls for files that Python has no functions for, with the kernel's errors as exceptions."""

import ctypes
import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

_OPENAT2: Final = 437
"""The same on every machine (include/uapi/asm-generic/unistd.h)."""
_CAPABILITY_VERSION: Final = 0x20080522
_STATFS_BYTES: Final = 256
"""More than struct statfs has anywhere."""
_MADE_BY_THE_KERNEL: Final = frozenset((
    0x9FA0, 0x62656572, 0x64626720, 0x74726163, 0x27E0EB, 0x63677270, 0x73636673, 0xCAFE4A11, 0x65735543,
    0x62656570, 0x1CD1, 0x6E736673, 0xF97CFF8C, 0x6165676C, 0xDE5E81E4,
))  # fmt: skip
"""Types of proc, sys, debug, trace, cgroup, cgroup2, security, bpf, fusectl, config, devpts, ns, selinux,
pstore and efivar file systems (statfs(2))."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _CapabilityHeader(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    """struct __user_cap_data_struct."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def open_at(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """Open a path from a directory's descriptor on, by openat2(2); return a descriptor.

    Raises:
        OSError: as the kernel says; ENOSYS where it, or a container's filter, has no openat2.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    fd = _libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_long(directory),
        path,
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0 and ctypes.get_errno() == errno.EPERM:
        # Older container runtimes refuse what they do not know. Of the call itself it is no answer.
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return _checked(fd)


def is_made_by_kernel(fd: int) -> bool:
    """Return whether an open file is of a file system without content of its own, such as /proc."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    _checked(_libc.fstatfs(fd, found))
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF in _MADE_BY_THE_KERNEL


@contextmanager
def without_capabilities(*, active: bool) -> Generator[None]:
    """Do what is inside without any capability, if `active`: as confined code of the same user would.

    Capabilities belong to a thread, so no other thread of this program notices.
    """
    if not active:
        yield
        return
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    held = (_CapabilityData * 2)()
    _checked(_libc.capget(ctypes.byref(header), held))
    if not any(each.effective for each in held):
        yield
        return
    fewer = (_CapabilityData * 2)(*(_CapabilityData(0, each.permitted, each.inheritable) for each in held))
    _checked(_libc.capset(ctypes.byref(header), fewer))
    try:
        yield
    finally:
        _checked(_libc.capset(ctypes.byref(header), held))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
