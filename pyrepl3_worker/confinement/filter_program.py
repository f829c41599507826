"""Builds programs for seccomp(2) filters, instruction by instruction."""

from __future__ import annotations

import ctypes
import errno
import struct

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
JUMP_IF_EQUAL, JUMP_IF_GREATER, _JUMP_IF_AT_LEAST, JUMP_IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45
"""Tests of the loaded field."""
NUMBER, ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Where the fields of a call are (`struct seccomp_data`)."""
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

    def run_if_equal(self, value: int, block: FilterProgram) -> None:
        """Run a block, which must end with `return_action`, if the loaded value is equal to another."""
        self._code.append((JUMP_IF_EQUAL, 0, len(block._code), value))
        self._code += block._code

    def search(self, ranges: Sequence[tuple[int, FilterProgram]]) -> None:
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


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def program_of(code: bytes) -> ctypes.Structure:
    """Return a program as the kernel takes it."""
    return _SockFprog(len(code) // 8, code)
