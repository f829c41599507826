"""The seccomp filter: a list of the system calls that are allowed, and rules about arguments of some.

What is refused by name fails with EPERM; everything else with ENOSYS, so that a new kernel adds no unknown
risk. `syscall_table` lists the calls. The filter is a binary search over ranges of numbers: what a call costs
hardly depends on how many are listed, and the kernel does not run it for calls that are allowed with any
arguments. See seccomp(2).
"""

import ctypes
import errno
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from pyrepl3_worker.confinement import syscalls
from pyrepl3_worker.confinement.syscall_table import ALLOWED, JUDGED, REFUSED, CallNumbers

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_SET_MODE_FILTER, _FOR_ALL_THREADS = 1, 1
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ARCHITECTURES: Final = (0xC000003E, 0xC00000B7)

_NEW_NAMESPACES: Final = 0x7E020000
_CLONE_PARENT: Final = 0x8000
"""Makes a sibling of the caller: the keeper's child, where it could hold up the end of the worker."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Both put characters into a terminal's input, as if its user had typed them."""
_F_SETLEASE, _F_NOTIFY = 1024, 1026
_F_SETOWN, _F_SETOWN_EX = 8, 15
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_PRIO_USER, _IOPRIO_USER = 2, 3
"""Both make others who open a file, or change a folder, wait or tell: also files that can only be read."""
_SET_ID_BITS: Final = 0o6000
"""S_ISUID and S_ISGID: a file in a writable path would keep them outside. mkdir(2) ignores them."""
_O_CREAT, _O_TMPFILE = 0x40, 0x400000
_MSG_FASTOPEN: Final = 0x20000000
"""Connects without a call that Landlock judges."""
_MAP_TYPE, _MAP_SHARED, _MAP_SHARED_VALIDATE, _MAP_ANONYMOUS = 0xF, 1, 3, 0x20
_PERSONALITY_QUERY: Final = 0xFFFFFFFF
AF_UNIX: Final = 1
_AF_INET, _AF_INET6 = 2, 10
_SOCK_TYPE: Final = 0xF
_SOCK_STREAM, _SOCK_DGRAM = 1, 2

_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_JUMP_IF_EQUAL, _JUMP_IF_GREATER, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45
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

    def load_argument(self, position: int) -> None:
        """Load the low half of an argument, counted from 0, for the next tests."""
        self.load(_ARGUMENTS + 8 * position)

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

    def search(self, ranges: "Sequence[tuple[int, FilterProgram]]") -> None:
        """Run one of several blocks, which must end with `return_action`, by the loaded value.

        Args:
            ranges: the first value for which each runs, ascending; the first block runs for all below too.
        """
        if len(ranges) == 1:
            self._code += ranges[0][1]._code
            return
        middle = len(ranges) // 2
        below, above = FilterProgram(), FilterProgram()
        below.search(ranges[:middle])
        above.search(ranges[middle:])
        distance, start = len(below._code), ranges[middle][0]
        if distance <= _MAX_JUMP:
            self._code.append((_JUMP_IF_AT_LEAST, distance, 0, start))
        else:
            self._code += [(_JUMP_IF_AT_LEAST, 0, 1, start), (_JUMP, 0, 0, distance)]
        self._code += below._code + above._code

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
    actions = dict.fromkeys(_numbers(ALLOWED, column).values(), _block(_ALLOW))
    actions |= dict.fromkeys(_numbers(REFUSED, column).values(), _block(fail_with()))
    judged = _judged_calls(families)
    actions |= {number: judged[name] for name, number in _numbers(JUDGED, column).items()}
    return _assemble(column, actions, _block(fail_with(errno.ENOSYS)))


def build_memory_filter(column: int) -> bytes:
    """Return the program of a second filter: it refuses memory that counts as no process's (ENOMEM).

    Args:
        column: 0 for x86-64, 1 for aarch64.
    """
    judged = {"mmap": _mmap_block(), "memfd_create": _block(fail_with(errno.ENOMEM))}
    actions = {number: judged[name] for name, number in _numbers(JUDGED, column).items() if name in judged}
    return _assemble(column, actions, _block(_ALLOW))


def build_process_filter(column: int) -> bytes:
    """Return the program of a further filter, which refuses what changes other processes and is no signal.

    It is for where they are in reach. Landlock keeps signals from them; a limit of CPU time can kill too.

    Args:
        column: 0 for x86-64, 1 for aarch64.
    """
    own = ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr")
    judged = {name: _zero_block(0) for name in own}
    judged |= {
        "setpriority": _zero_block(1, never=_PRIO_USER),
        "ioprio_set": _zero_block(1, never=_IOPRIO_USER),
    }
    judged |= {
        "fcntl": _values_block(1, (_F_SETOWN, _F_SETOWN_EX)),
        "ioctl": _values_block(1, (_FIOSETOWN, _SIOCSPGRP)),
    }
    numbers = _numbers(ALLOWED, column) | _numbers(JUDGED, column)
    return _assemble(column, {numbers[name]: block for name, block in judged.items()}, _block(_ALLOW))


def _assemble(column: int, actions: dict[int, FilterProgram], otherwise: FilterProgram) -> bytes:
    program = FilterProgram()
    program.load(_ARCHITECTURE)
    program.return_unless(_JUMP_IF_EQUAL, _ARCHITECTURES[column], _KILL)
    program.load(_NUMBER)
    program.search(_ranges(actions, otherwise))
    return program.assemble()


def _numbers(table: CallNumbers, column: int) -> dict[str, int]:
    return {name: number for name, numbers in table.items() if (number := numbers[column]) is not None}


def _ranges(actions: dict[int, FilterProgram], otherwise: FilterProgram) -> list[tuple[int, FilterProgram]]:
    """Return where each block begins to hold: `otherwise` between those with one, and for x32's above."""
    ranges = [(0, otherwise)]
    for number in range(max(actions) + 2):
        block = actions.get(number, otherwise)
        if block is not ranges[-1][1]:
            ranges.append((number, block))
    return ranges


def _judged_calls(families: Sequence[int]) -> dict[str, FilterProgram]:
    blocks = {
        "clone": _bits_block(0, _NEW_NAMESPACES | _CLONE_PARENT),
        "ioctl": _values_block(1, (_TIOCSTI, _TIOCLINUX)),
        "fcntl": _values_block(1, (_F_SETLEASE, _F_NOTIFY)),
        "personality": _personality_block(),
        "socket": _socket_block(families),
        "socketpair": _socketpair_block(streams_only=not families),
        "mmap": _block(_ALLOW),
        "memfd_create": _block(_ALLOW),
        "open": _open_block(1),
        "openat": _open_block(2),
    }
    blocks |= {name: _bits_block(1, _SET_ID_BITS) for name in ("creat", "chmod", "fchmod", "mknod")}
    blocks |= {name: _bits_block(2, _SET_ID_BITS) for name in ("fchmodat", "fchmodat2", "mknodat")}
    sends = (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3))
    return blocks | {name: _bits_block(at, _MSG_FASTOPEN, errno.EOPNOTSUPP) for name, at in sends}


def _block(action: int) -> FilterProgram:
    block = FilterProgram()
    block.return_action(action)
    return block


def _bits_block(position: int, bits: int, number: int = errno.EPERM) -> FilterProgram:
    """Return a block that fails with an errno if an argument has any of some bits."""
    block = FilterProgram()
    block.load_argument(position)
    block.return_if(_JUMP_IF_ANY_BIT, bits, fail_with(number))
    block.return_action(_ALLOW)
    return block


def _zero_block(position: int, *, never: int | None = None) -> FilterProgram:
    """Return a block that refuses all values of an argument but 0, which is the caller itself.

    Args:
        position: of the argument.
        never: a value of the first argument with which even 0 means others.
    """
    block = FilterProgram()
    block.load_argument(position)
    block.return_unless(_JUMP_IF_EQUAL, 0, fail_with())
    if never is not None:
        block.load_argument(0)
        block.return_if(_JUMP_IF_EQUAL, never, fail_with())
    block.return_action(_ALLOW)
    return block


def _values_block(position: int, values: Iterable[int]) -> FilterProgram:
    """Return a block that refuses some values of an argument."""
    block = FilterProgram()
    block.load_argument(position)
    for value in values:
        block.return_if(_JUMP_IF_EQUAL, value, fail_with())
    block.return_action(_ALLOW)
    return block


def _open_block(flags: int) -> FilterProgram:
    """Return a block for calls whose mode, which follows the flags, counts only where a file is made."""
    block = FilterProgram()
    block.load_argument(flags)
    block.return_unless(_JUMP_IF_ANY_BIT, _O_CREAT | _O_TMPFILE, _ALLOW)
    block.load_argument(flags + 1)
    block.return_if(_JUMP_IF_ANY_BIT, _SET_ID_BITS, fail_with())
    block.return_action(_ALLOW)
    return block


def _mmap_block() -> FilterProgram:
    """Return a block that refuses shared memory without a file: no process has what is not mapped of it."""
    block = FilterProgram()
    block.load_argument(3)
    block.mask(_MAP_TYPE | _MAP_ANONYMOUS)
    for kind in (_MAP_SHARED, _MAP_SHARED_VALIDATE):
        block.return_if(_JUMP_IF_EQUAL, kind | _MAP_ANONYMOUS, fail_with(errno.ENOMEM))
    block.return_action(_ALLOW)
    return block


def _personality_block() -> FilterProgram:
    """Return a block that allows to ask for the personality, and to have the usual one."""
    block = FilterProgram()
    block.load_argument(0)
    for value in (0, _PERSONALITY_QUERY):
        block.return_if(_JUMP_IF_EQUAL, value, _ALLOW)
    block.return_action(fail_with())
    return block


def _socket_block(families: Iterable[int]) -> FilterProgram:
    block = FilterProgram()
    block.load_argument(1)
    block.mask(_SOCK_TYPE)
    # SOCK_RAW and others.
    block.return_if(_JUMP_IF_GREATER, _SOCK_DGRAM, fail_with(errno.EACCES))
    block.load_argument(0)
    for family in families:
        block.return_if(_JUMP_IF_EQUAL, family, _ALLOW)
    block.return_action(fail_with(errno.EACCES))
    return block


def _socketpair_block(*, streams_only: bool) -> FilterProgram:
    block = FilterProgram()
    block.load_argument(0)
    block.return_unless(_JUMP_IF_EQUAL, AF_UNIX, fail_with(errno.EACCES))
    if streams_only:
        block.load_argument(1)
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


def leave_other_processes_alone() -> None:
    """Refuse to this process, and to all that it starts, what changes other processes without a signal.

    Raises:
        OSError: the kernel has no seccomp, or this machine's call numbers are not known.
    """
    code = build_process_filter(syscalls.table_column())
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, _SockFprog(len(code) // 8, code))


def refuse_uncountable_memory() -> None:
    """Have all threads of this process, and all that they start, use no memory that counts as no process's.

    Raises:
        OSError: the kernel refused, or this machine's call numbers are not known.
    """
    column = syscalls.table_column()
    code = build_memory_filter(column)
    number = ALLOWED["seccomp"][column]
    assert number is not None
    syscalls.call(number, _SET_MODE_FILTER, _FOR_ALL_THREADS, _SockFprog(len(code) // 8, code))


PRIVATE_FAMILIES: Final = (AF_UNIX, _AF_INET, _AF_INET6)
"""Families that reach nothing outside, from a network namespace and a root directory of its own."""
