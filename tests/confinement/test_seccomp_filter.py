"""The seccomp filters, run by a small machine: also those for processors that this is not."""

import errno
import struct

import pytest

from pyrepl3_worker.confinement import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86_64, AARCH64 = 0, 1
ARCHITECTURES = (0xC000003E, 0xC00000B7)


def judge(
    code: bytes, column: int, number: int, *arguments: int, architecture: int | None = None
) -> int | str:
    """Run a filter on a system call; give "allow", "kill", or an errno."""
    words = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack(
        "<IIQ6Q", number, ARCHITECTURES[column] if architecture is None else architecture, 0, *words
    )
    program = list(struct.iter_unpack("=HBBI", code))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, k = program[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x25:
                at += if_true if accumulator > k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case 0x06:
                return {ALLOW: "allow", KILL: "kill"}.get(k, k & 0xFFFF)
            case _:
                raise AssertionError(f"an instruction that is not used here: {operation:#x}")


@pytest.mark.parametrize("column", [X86_64, AARCH64])
def test_calls_are_judged(column: int) -> None:
    code = seccomp.build_filter(column, seccomp.PRIVATE_FAMILIES)
    for numbers in seccomp.REFUSED.values():
        number = numbers[column]
        if number is not None:
            assert judge(code, column, number) == errno.EPERM
    read, clone, clone3, socket, ioctl = ((0, 56, 435, 41, 16), (63, 220, 435, 198, 29))[column]
    assert judge(code, column, read) == "allow"
    assert judge(code, column, read, architecture=0x40000003) == "kill"
    assert judge(code, column, clone, 17) == "allow"
    assert judge(code, column, clone, 0x3D0F00) == "allow"  # a thread
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert judge(code, column, clone, 17 | namespace) == errno.EPERM
    assert judge(code, column, clone, 17 | 0x8000) == errno.EPERM  # a child of the keeper's
    assert judge(code, column, clone3) == errno.ENOSYS
    assert judge(code, column, 471) == errno.ENOSYS
    assert judge(code, column, read | 0x40000000) == errno.ENOSYS
    assert judge(code, column, ioctl, 0, 0x5413) == "allow"
    for request in (0x5412, 0x541C, 0x5412 | 1 << 40):  # the kernel looks at the low half alone
        assert judge(code, column, ioctl, 0, request) == errno.EPERM
    for family in (1, 2, 10):
        assert judge(code, column, socket, family, 1 | 0o2004000) == "allow"
        assert judge(code, column, socket, family, 3) == errno.EACCES
    for family in (16, 17, 38, 40):
        assert judge(code, column, socket, family, 1) == errno.EACCES


@pytest.mark.parametrize("column", [X86_64, AARCH64])
def test_no_network_at_all(column: int) -> None:
    code = seccomp.build_filter(column, ())
    socket, pair = ((41, 53), (198, 199))[column]
    for family, kind, protocol in (
        (2, 1, 0),
        (2, 1, 6),
        (10, 1, 0),
        (2, 1, 262),
        (2, 2, 0),
        (1, 1, 0),
        (1, 2, 0),
        (16, 3, 0),
    ):
        assert judge(code, column, socket, family, kind, protocol) == errno.EACCES
    assert judge(code, column, pair, 1, 1 | 0o2000000) == "allow"
    assert judge(code, column, pair, 1, 2) == errno.EACCES


def test_both_columns_name_each_call_once() -> None:
    for column in (X86_64, AARCH64):
        numbers = [numbers[column] for numbers in seccomp.REFUSED.values() if numbers[column] is not None]
        assert len(set(numbers)) == len(numbers)
