"""Refuses to make siblings: children that the kernel gives to the worker's parent (CLONE_PARENT, clone(2)).

The parent knows nothing of such a child, so it waits for none: a cell could fill the parent's process table
with zombies, and leave a process behind that is no descendant of its worker. At the level "strict" the list
of system calls refuses it; this is for the level "limits".
"""

import errno
import os
from typing import Final

from pyrepl3_worker.confinement import in_force, syscalls
from pyrepl3_worker.confinement.filter_program import (
    ALLOW,
    ARCHITECTURE,
    JUMP_IF_ANY_BIT,
    JUMP_IF_EQUAL,
    NUMBER,
    FilterProgram,
    fail_with,
    program_of,
)

_CLONE_PARENT: Final = 0x8000
_CLONE3: Final = 435
"""The same number everywhere. Its flags are in memory, which a filter cannot read; there is clone too."""
_NOT_X32: Final = 0xBFFFFFFF
"""Calls by the numbers of x32 are those of x86-64 with one bit more."""
_SECCOMP_CALLS: Final = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
_CLONE_CALLS: Final = {0xC000003E: 56, 0x40000003: 120, 0xC00000B7: 220, 0x40000028: 120, 0xC00000F3: 220}
"""By the architectures that a program can have: x86-64, i386, aarch64, arm, riscv64."""
_SET_MODE_FILTER: Final = 1
_SPECULATION_AS_BEFORE: Final = 4
"""Older kernels would slow the process down otherwise."""


def refuse_siblings() -> None:
    """Refuse to make siblings to this process and all that it starts, where the kernel has filters."""
    number = _SECCOMP_CALLS.get(os.uname().machine)
    if number is None:
        return
    program = program_of(build_filter())
    try:
        syscalls.call(number, _SET_MODE_FILTER, _SPECULATION_AS_BEFORE, program)
    except OSError:
        return  # the kernel has no filters, or something forbids them
    in_force.add("no_siblings")


def build_filter() -> bytes:
    """Return the filter's program: whatever makes no process is allowed."""
    program = FilterProgram()
    for architecture, clone in _CLONE_CALLS.items():
        block = FilterProgram()
        block.load(NUMBER)
        block.mask(_NOT_X32)
        block.return_if(JUMP_IF_EQUAL, _CLONE3, fail_with(errno.ENOSYS))
        block.return_unless(JUMP_IF_EQUAL, clone, ALLOW)
        block.load_argument(0)
        block.return_if(JUMP_IF_ANY_BIT, _CLONE_PARENT, fail_with())
        block.return_action(ALLOW)
        program.load(ARCHITECTURE)
        program.run_if_equal(architecture, block)
    program.return_action(ALLOW)
    return program.assemble()
