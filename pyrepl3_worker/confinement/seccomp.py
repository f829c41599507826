"""A seccomp filter: system calls that no session needs, and that others have escaped by, fail with EPERM.

A list of what is refused, not of what is allowed: the code may be anything that Python runs. What is newer
than this list does not exist for it (ENOSYS), so that a new kernel opens nothing unseen. See seccomp(2).
"""

import ctypes
import errno
import struct
from collections.abc import Iterable
from typing import Final

from pyrepl3_worker.confinement import syscalls

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ARCHITECTURES: Final = (0xC000003E, 0xC00000B7)
_X32: Final = 0x40000000
_NEWEST: Final = 470
"""The highest number that has been judged (Linux 6.18)."""

REFUSED: Final = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "move_pages": (279, 239), "migrate_pages": (256, 238),
    # the tree of files, and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "unshare": (272, 97), "setns": (308, 268), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    # large and often broken parts of the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "nfsservctl": (180, 42), "modify_ldt": (154, None),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "syslog": (103, 116), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None),
}  # fmt: skip
"""Refused whatever their arguments: numbers on x86-64 and on aarch64."""

_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_SOCKET: Final = (41, 198)
_SOCKETPAIR: Final = (53, 199)
_IOCTL: Final = (16, 29)
_NEW_NAMESPACES: Final = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE: Final = 0xF
_SOCK_STREAM, _SOCK_DGRAM = 1, 2

_LOAD, _AND, _JUMP, _EQUAL, _GREATER, _ANY, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_FAR: Final = 255


class FilterProgram:
    """A filter under construction, made of tests that each either answer or fall through."""

    def __init__(self) -> None:
        """Nothing is tested yet."""
        self._code: list[tuple[int, int, int, int]] = []

    def load(self, offset: int) -> None:
        """Look at a field of the call from here on."""
        self._code.append((_LOAD, 0, 0, offset))

    def mask(self, bits: int) -> None:
        """Look at some bits alone of what was loaded."""
        self._code.append((_AND, 0, 0, bits))

    def answer(self, action: int) -> None:
        """End with an action."""
        self._code.append((_RETURN, 0, 0, action))

    def answer_if(self, test: int, value: int, action: int) -> None:
        """End with an action where the test holds."""
        self._code.append((test, 0, 1, value))
        self.answer(action)

    def answer_unless(self, test: int, value: int, action: int) -> None:
        """End with an action where the test does not hold."""
        self._code.append((test, 1, 0, value))
        self.answer(action)

    def when_number(self, number: int, block: "FilterProgram") -> None:
        """Go through a block, which ends with an answer, for one system call."""
        if len(block._code) > _FAR:
            raise ValueError("a block is too long to be jumped over")
        self._code.append((_EQUAL, 0, len(block._code), number))
        self._code += block._code

    def assemble(self) -> bytes:
        """Give the filter's bytes: struct sock_filter, one after the other."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self._code)


def refuse(number: int = errno.EPERM) -> int:
    """Give the action that fails with an errno."""
    return _ERRNO | number


def build(column: int, families: Iterable[int], *, streams_only: bool) -> bytes:
    """Give the filter's bytes.

    Args:
        column: 0 for x86-64, 1 for aarch64.
        families: socket families that may be opened.
        streams_only: whether sockets of the internet families may be TCP alone, and pairs of unix sockets
            streams (one of datagrams can send to any other).
    """
    program = FilterProgram()
    program.load(_ARCHITECTURE)
    program.answer_unless(_EQUAL, _ARCHITECTURES[column], _KILL)
    program.load(_NUMBER)
    # Also x32's calls, whose numbers have a high bit.
    program.answer_if(_GREATER, _NEWEST, refuse(errno.ENOSYS))
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            program.answer_if(_EQUAL, number, refuse())
    # Its flags lie in memory, where no filter can look; the C library falls back to clone.
    program.answer_if(_EQUAL, _CLONE3[column], refuse(errno.ENOSYS))
    program.when_number(_CLONE[column], _clone())
    program.when_number(_IOCTL[column], _ioctl())
    program.when_number(_SOCKET[column], _socket(families, streams_only=streams_only))
    if streams_only:
        program.when_number(_SOCKETPAIR[column], _pair())
    program.answer(_ALLOW)
    return program.assemble()


def _clone() -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS)
    block.answer_if(_ANY, _NEW_NAMESPACES, refuse())
    block.answer(_ALLOW)
    return block


def _ioctl() -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS + 8)
    # Both type into a terminal as if its user had.
    block.answer_if(_EQUAL, _TIOCSTI, refuse())
    block.answer_if(_EQUAL, _TIOCLINUX, refuse())
    block.answer(_ALLOW)
    return block


def _socket(families: Iterable[int], *, streams_only: bool) -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS + 8)
    block.mask(_SOCK_TYPE)
    # SOCK_RAW and stranger ones.
    block.answer_if(_GREATER, _SOCK_STREAM if streams_only else _SOCK_DGRAM, refuse(errno.EACCES))
    if streams_only:
        # IPPROTO_IP is the type's own; others make streams that Landlock does not know (MPTCP, SCTP).
        block.load(_ARGUMENTS + 16)
        for harmless in (0, 6):
            inner = FilterProgram()
            inner.load(_ARGUMENTS)
            for family in families:
                inner.answer_if(_EQUAL, family, _ALLOW)
            inner.answer(refuse(errno.EACCES))
            block.when_number(harmless, inner)
        block.answer(refuse(errno.EACCES))
        return block
    block.load(_ARGUMENTS)
    for family in families:
        block.answer_if(_EQUAL, family, _ALLOW)
    block.answer(refuse(errno.EACCES))
    return block


def _pair() -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS + 8)
    block.mask(_SOCK_TYPE)
    block.answer_unless(_EQUAL, _SOCK_STREAM, refuse(errno.EACCES))
    block.answer(_ALLOW)
    return block


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def install(families: Iterable[int], *, streams_only: bool) -> None:
    """Filter the calls of this process and of all that it will ever start.

    Raises:
        OSError: the kernel has no seccomp, or its numbers are not known for this machine.
    """
    code = build(syscalls.column(), families, streams_only=streams_only)
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, _Filter(len(code) // 8, code))


PRIVATE: Final = (_AF_UNIX, _AF_INET, _AF_INET6)
"""Families that reach nobody outside, in a network namespace and a tree of files of one's own."""
OUTSIDE_TCP: Final = (_AF_INET, _AF_INET6)
"""Families by which TCP goes; a unix socket would reach past Landlock."""
