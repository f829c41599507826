"""The seccomp filter: system calls that no session needs, and that were used for escapes, fail with EPERM.

It lists the calls that are refused, not those that are allowed: the code may be anything that Python runs.
Calls newer than this list fail with ENOSYS, so that a new kernel adds no unknown risk. See seccomp(2).
"""

import ctypes
import errno
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from pyrepl3_worker.confinement import syscalls

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ARCHITECTURES: Final = (0xC000003E, 0xC00000B7)
_X32: Final = 0x40000000
_NEWEST_KNOWN_CALL: Final = 470
"""The highest number that was considered for the list (Linux 6.18)."""

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
"""Calls that are refused with any arguments: their numbers on x86-64 and on aarch64."""

_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_SOCKET: Final = (41, 198)
_SOCKETPAIR: Final = (53, 199)
_IOCTL: Final = (16, 29)
_NEW_NAMESPACES: Final = 0x7E020000
_CLONE_PARENT: Final = 0x8000
"""Makes a sibling of the caller: the keeper's child, where it could hold up the end of the worker."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE: Final = 0xF
_SOCK_STREAM, _SOCK_DGRAM = 1, 2

_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_JUMP_IF_EQUAL, _JUMP_IF_GREATER, _JUMP_IF_ANY_BIT = 0x15, 0x25, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_MAX_JUMP: Final = 255


class FilterProgram:
    """Builds a filter's BPF program: tests that either return an action or continue with the next."""

    def __init__(self) -> None:
        """Start with an empty program."""
        self._code: list[tuple[int, int, int, int]] = []

    def load(self, offset: int) -> None:
        """Load a field of the call (`struct seccomp_data`) for the next tests."""
        self._code.append((_LOAD, 0, 0, offset))

    def mask(self, bits: int) -> None:
        """Keep only some bits of the loaded field."""
        self._code.append((_AND, 0, 0, bits))

    def return_action(self, action: int) -> None:
        """Return an action."""
        self._code.append((_RETURN, 0, 0, action))

    def return_if(self, test: int, value: int, action: int) -> None:
        """Return an action if the test holds."""
        self._code.append((test, 0, 1, value))
        self.return_action(action)

    def return_unless(self, test: int, value: int, action: int) -> None:
        """Return an action if the test does not hold."""
        self._code.append((test, 1, 0, value))
        self.return_action(action)

    def block_for_call(self, number: int, block: "FilterProgram") -> None:
        """Run a block if the loaded value is `number`; the block must end with `return_action`."""
        if len(block._code) > _MAX_JUMP:
            raise ValueError("a block is too long to be jumped over")
        self._code.append((_JUMP_IF_EQUAL, 0, len(block._code), number))
        self._code += block._code

    def assemble(self) -> bytes:
        """Return the program's bytes: an array of `struct sock_filter`."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self._code)


def fail_with(number: int = errno.EPERM) -> int:
    """Return the action that makes a call fail with an errno."""
    return _ERRNO | number


def build_filter(column: int, families: Sequence[int]) -> bytes:
    """Return the filter's program.

    Args:
        column: 0 for x86-64, 1 for aarch64.
        families: socket families that may be opened. If there are none, only pairs of streams may be (a
            datagram socket of a pair can send to any other).
    """
    program = FilterProgram()
    program.load(_ARCHITECTURE)
    program.return_unless(_JUMP_IF_EQUAL, _ARCHITECTURES[column], _KILL)
    program.load(_NUMBER)
    # This includes x32's calls, whose numbers have a high bit set.
    program.return_if(_JUMP_IF_GREATER, _NEWEST_KNOWN_CALL, fail_with(errno.ENOSYS))
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            program.return_if(_JUMP_IF_EQUAL, number, fail_with())
    # The flags of clone3 are in memory, which a filter can't read; the C library falls back to clone.
    program.return_if(_JUMP_IF_EQUAL, _CLONE3[column], fail_with(errno.ENOSYS))
    program.block_for_call(_CLONE[column], _clone_block())
    program.block_for_call(_IOCTL[column], _ioctl_block())
    program.block_for_call(_SOCKET[column], _socket_block(families))
    if not families:
        program.block_for_call(_SOCKETPAIR[column], _socketpair_block())
    program.return_action(_ALLOW)
    return program.assemble()


def _clone_block() -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS)
    block.return_if(_JUMP_IF_ANY_BIT, _NEW_NAMESPACES | _CLONE_PARENT, fail_with())
    block.return_action(_ALLOW)
    return block


def _ioctl_block() -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS + 8)
    # Both put characters into a terminal's input, as if its user had typed them.
    block.return_if(_JUMP_IF_EQUAL, _TIOCSTI, fail_with())
    block.return_if(_JUMP_IF_EQUAL, _TIOCLINUX, fail_with())
    block.return_action(_ALLOW)
    return block


def _socket_block(families: Iterable[int]) -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS + 8)
    block.mask(_SOCK_TYPE)
    # SOCK_RAW and others.
    block.return_if(_JUMP_IF_GREATER, _SOCK_DGRAM, fail_with(errno.EACCES))
    block.load(_ARGUMENTS)
    for family in families:
        block.return_if(_JUMP_IF_EQUAL, family, _ALLOW)
    block.return_action(fail_with(errno.EACCES))
    return block


def _socketpair_block() -> FilterProgram:
    block = FilterProgram()
    block.load(_ARGUMENTS + 8)
    block.mask(_SOCK_TYPE)
    block.return_unless(_JUMP_IF_EQUAL, _SOCK_STREAM, fail_with(errno.EACCES))
    block.return_action(_ALLOW)
    return block


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def install_filter(families: Sequence[int]) -> None:
    """Filter the system calls of this process and of everything that it starts.

    Args:
        families: as for `build_filter`.

    Raises:
        OSError: the kernel has no seccomp, or this machine's call numbers are not known.
    """
    code = build_filter(syscalls.table_column(), families)
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, _SockFprog(len(code) // 8, code))


PRIVATE_FAMILIES: Final = (_AF_UNIX, _AF_INET, _AF_INET6)
"""Families that reach nothing outside, from a network namespace and a root directory of its own."""
