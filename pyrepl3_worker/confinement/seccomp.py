"""The seccomp filter: a list of the system calls that are allowed, and rules about arguments of some.

What is refused by name fails with EPERM; everything else with ENOSYS, so that a new kernel adds no unknown
risk. `syscall_table` lists the calls. The filter is a binary search over ranges of numbers: what a call costs
hardly depends on how many are listed, and the kernel does not run it for calls that are allowed with any
arguments. See seccomp(2).
"""

from __future__ import annotations

import errno

from pyrepl3_worker.confinement import syscalls
from pyrepl3_worker.confinement.filter_program import (
    ALLOW,
    ARCHITECTURE,
    JUMP_IF_ANY_BIT,
    JUMP_IF_EQUAL,
    JUMP_IF_GREATER,
    KILL,
    NUMBER,
    FilterProgram,
    fail_with,
    program_of,
)
from pyrepl3_worker.confinement.syscall_table import ALLOWED, JUDGED, REFUSED, CallNumbers

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_SET_MODE_FILTER, _FOR_ALL_THREADS = 1, 1
_ARCHITECTURES: Final = (0xC000003E, 0xC00000B7)

_NEW_NAMESPACES: Final = 0x7E020000
_CLONE_PARENT: Final = 0x8000
"""Makes a sibling of the caller: the keeper's child, where it could hold up the end of the worker."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Both put characters into a terminal's input, as if its user had typed them."""
_F_SETLEASE, _F_NOTIFY = 1024, 1026
"""Both make others who open a file, or change a folder, wait or tell: also files that can only be read."""
_F_SETOWN, _F_SETOWN_EX = 8, 15
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_PRIO_USER, _IOPRIO_USER = 2, 3
_SET_ID_BITS: Final = 0o6000
"""S_ISUID and S_ISGID: a file in a writable path would keep them outside. mkdir(2) ignores them."""
_O_CREAT, _O_TMPFILE = 0x40, 0x400000
_MSG_FASTOPEN: Final = 0x20000000
"""Connects without a call that Landlock judges."""
_MAP_TYPE, _MAP_SHARED, _MAP_SHARED_VALIDATE, _MAP_ANONYMOUS = 0xF, 1, 3, 0x20
_OF_FILES: Final = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes",
    "utimensat", "futimesat", "inotify_add_watch",
)  # fmt: skip
"""Calls that need no open file, and for some of which an fd that reads nothing (O_PATH) is enough."""
_PERSONALITY_QUERY: Final = 0xFFFFFFFF
AF_UNIX: Final = 1
_AF_INET, _AF_INET6 = 2, 10
_SOCK_TYPE: Final = 0xF
_SOCK_STREAM, _SOCK_DGRAM = 1, 2


def build_filter(column: int, families: Sequence[int]) -> bytes:
    """Return the filter's program.

    Args:
        column: 0 for x86-64, 1 for aarch64.
        families: socket families that may be opened. If there are none, only pairs of streams may be (a
            datagram socket of a pair can send to any other).
    """
    actions = dict.fromkeys(_numbers(ALLOWED, column).values(), _block(ALLOW))
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
    return _assemble(column, actions, _block(ALLOW))


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
    return _assemble(column, {numbers[name]: block for name, block in judged.items()}, _block(ALLOW))


def build_file_filter(column: int) -> bytes:
    """Return the program of a further filter, which refuses to change or watch files without opening them.

    It is for where the machine's files are in reach. Landlock judges none of these calls.

    Args:
        column: 0 for x86-64, 1 for aarch64.
    """
    numbers = _numbers(ALLOWED, column) | _numbers(JUDGED, column)
    actions = {numbers[name]: _block(fail_with()) for name in _OF_FILES if name in numbers}
    # Programs that copy files take this for a file system that has none.
    without = _block(fail_with(errno.EOPNOTSUPP))
    actions |= {number: without for name, number in numbers.items() if "xattr" in name}
    return _assemble(column, actions, _block(ALLOW))


def _assemble(column: int, actions: dict[int, FilterProgram], otherwise: FilterProgram) -> bytes:
    program = FilterProgram()
    program.load(ARCHITECTURE)
    program.return_unless(JUMP_IF_EQUAL, _ARCHITECTURES[column], KILL)
    program.load(NUMBER)
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
        "mmap": _block(ALLOW),
        "memfd_create": _block(ALLOW),
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
    block.return_if(JUMP_IF_ANY_BIT, bits, fail_with(number))
    block.return_action(ALLOW)
    return block


def _zero_block(position: int, *, never: int | None = None) -> FilterProgram:
    """Return a block that refuses all values of an argument but 0, which is the caller itself.

    Args:
        position: of the argument.
        never: a value of the first argument with which even 0 means others.
    """
    block = FilterProgram()
    block.load_argument(position)
    block.return_unless(JUMP_IF_EQUAL, 0, fail_with())
    if never is not None:
        block.load_argument(0)
        block.return_if(JUMP_IF_EQUAL, never, fail_with())
    block.return_action(ALLOW)
    return block


def _values_block(position: int, values: Iterable[int]) -> FilterProgram:
    """Return a block that refuses some values of an argument."""
    block = FilterProgram()
    block.load_argument(position)
    for value in values:
        block.return_if(JUMP_IF_EQUAL, value, fail_with())
    block.return_action(ALLOW)
    return block


def _open_block(flags: int) -> FilterProgram:
    """Return a block for calls whose mode, which follows the flags, counts only where a file is made."""
    block = FilterProgram()
    block.load_argument(flags)
    block.return_unless(JUMP_IF_ANY_BIT, _O_CREAT | _O_TMPFILE, ALLOW)
    block.load_argument(flags + 1)
    block.return_if(JUMP_IF_ANY_BIT, _SET_ID_BITS, fail_with())
    block.return_action(ALLOW)
    return block


def _mmap_block() -> FilterProgram:
    """Return a block that refuses shared memory without a file: no process has what is not mapped of it."""
    block = FilterProgram()
    block.load_argument(3)
    block.mask(_MAP_TYPE | _MAP_ANONYMOUS)
    for kind in (_MAP_SHARED, _MAP_SHARED_VALIDATE):
        block.return_if(JUMP_IF_EQUAL, kind | _MAP_ANONYMOUS, fail_with(errno.ENOMEM))
    block.return_action(ALLOW)
    return block


def _personality_block() -> FilterProgram:
    """Return a block that allows to ask for the personality, and to have the usual one."""
    block = FilterProgram()
    block.load_argument(0)
    for value in (0, _PERSONALITY_QUERY):
        block.return_if(JUMP_IF_EQUAL, value, ALLOW)
    block.return_action(fail_with())
    return block


def _socket_block(families: Iterable[int]) -> FilterProgram:
    block = FilterProgram()
    block.load_argument(1)
    block.mask(_SOCK_TYPE)
    # SOCK_RAW and others.
    block.return_if(JUMP_IF_GREATER, _SOCK_DGRAM, fail_with(errno.EACCES))
    block.load_argument(0)
    for family in families:
        block.return_if(JUMP_IF_EQUAL, family, ALLOW)
    block.return_action(fail_with(errno.EACCES))
    return block


def _socketpair_block(*, streams_only: bool) -> FilterProgram:
    block = FilterProgram()
    block.load_argument(0)
    block.return_unless(JUMP_IF_EQUAL, AF_UNIX, fail_with(errno.EACCES))
    if streams_only:
        block.load_argument(1)
        block.mask(_SOCK_TYPE)
        block.return_unless(JUMP_IF_EQUAL, _SOCK_STREAM, fail_with(errno.EACCES))
    block.return_action(ALLOW)
    return block


def install_filter(families: Sequence[int]) -> None:
    """Filter the system calls of this process and of everything that it starts.

    Args:
        families: as for `build_filter`.

    Raises:
        OSError: the kernel has no seccomp, or this machine's call numbers are not known.
    """
    code = _filter(tuple(families))
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program_of(code))


def leave_other_processes_alone() -> None:
    """Refuse to this process, and to all that it starts, what changes other processes without a signal.

    Raises:
        OSError: the kernel has no seccomp, or this machine's call numbers are not known.
    """
    code = build_process_filter(syscalls.table_column())
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program_of(code))


def leave_files_as_they_are() -> None:
    """Refuse to this process, and to all that it starts, what changes or watches files by their names.

    Raises:
        OSError: the kernel has no seccomp, or this machine's call numbers are not known.
    """
    code = build_file_filter(syscalls.table_column())
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program_of(code))


def refuse_uncountable_memory() -> None:
    """Have all threads of this process, and all that they start, use no memory that counts as no process's.

    Raises:
        OSError: the kernel refused, or this machine's call numbers are not known.
    """
    number = ALLOWED["seccomp"][syscalls.table_column()]
    assert number is not None
    syscalls.call(number, _SET_MODE_FILTER, _FOR_ALL_THREADS, program_of(_memory_filter()))


def build_ahead() -> None:
    """Build the filters that most workers have, so that clones of this process need not.

    Raises:
        OSError: this machine's call numbers are not known.
    """
    for families in (PRIVATE_FAMILIES, (_AF_INET, _AF_INET6)):
        _filter(families)
    _memory_filter()


_built: Final[dict[tuple[int, ...] | None, bytes]] = {}
"""Filters that were built, by their families; by None the one for memory."""


def _filter(families: tuple[int, ...]) -> bytes:
    if families not in _built:
        _built[families] = build_filter(syscalls.table_column(), families)
    return _built[families]


def _memory_filter() -> bytes:
    if None not in _built:
        _built[None] = build_memory_filter(syscalls.table_column())
    return _built[None]


PRIVATE_FAMILIES: Final = (AF_UNIX, _AF_INET, _AF_INET6)
"""Families that reach nothing outside, from a network namespace and a root directory of its own."""
