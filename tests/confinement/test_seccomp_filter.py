"""The seccomp filters, run by a small machine: also those for processors that this is not."""

import errno
import struct

import pytest

from pyrepl3_worker.confinement import seccomp, syscall_table

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
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x05:
                at += k
            case 0x45:
                at += if_true if accumulator & k else if_false
            case 0x06:
                return {ALLOW: "allow", KILL: "kill"}.get(k, k & 0xFFFF)
            case _:
                raise AssertionError(f"an instruction that is not used here: {operation:#x}")


@pytest.mark.parametrize("column", [X86_64, AARCH64])
def test_calls_are_judged(column: int) -> None:
    code = seccomp.build_filter(column, seccomp.PRIVATE_FAMILIES)
    for table, answer in (
        (syscall_table.REFUSED, errno.EPERM),
        (syscall_table.ALLOWED, "allow"),
        ({"personality": syscall_table.JUDGED["personality"]}, "allow"),
    ):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                assert judge(code, column, number) == answer
    read, clone, clone3, socket, ioctl = ((0, 56, 435, 41, 16), (63, 220, 435, 198, 29))[column]
    assert judge(code, column, read) == "allow"
    assert judge(code, column, read, architecture=0x40000003) == "kill"
    assert judge(code, column, clone, 17) == "allow"
    assert judge(code, column, clone, 0x3D0F00) == "allow"  # a thread
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert judge(code, column, clone, 17 | namespace) == errno.EPERM
    assert judge(code, column, clone, 17 | 0x8000) == errno.EPERM  # a child of the keeper's
    assert judge(code, column, clone3) == errno.ENOSYS
    for unknown in (437, 471, 10_000, (1 << 32) - 1, (29, 194)[column]):
        assert judge(code, column, unknown) == errno.ENOSYS
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
        numbers = [
            numbers[column]
            for table in (syscall_table.ALLOWED, syscall_table.JUDGED, syscall_table.REFUSED)
            for numbers in table.values()
            if numbers[column] is not None
        ]
        assert len(set(numbers)) == len(numbers)


def judge_by_name(code: bytes, column: int, name: str, *arguments: int) -> int | str | None:
    number = syscall_table.JUDGED[name][column]
    return None if number is None else judge(code, column, number, *arguments)


@pytest.mark.parametrize("column", [X86_64, AARCH64])
def test_arguments_are_judged(column: int) -> None:
    code = seccomp.build_filter(column, seccomp.PRIVATE_FAMILIES)
    high = 1 << 40  # of an int or an umode_t, the kernel looks at the low half alone
    for name, harmless, harmful, answer in (
        ("open", (0, 0, 0o4755), (0, 0o101, 0o4755), errno.EPERM),
        ("open", (0, 0o101, 0o755), (0, 0o101, 0o2755), errno.EPERM),
        ("openat", (0, 0, 0, 0o6755), (0, 0, 0o100, 0o4755), errno.EPERM),
        ("openat", (0, 0, 0o100, 0o1755), (0, 0, 0o20200000, 0o4755), errno.EPERM),
        ("creat", (0, 0o777), (0, 0o4000), errno.EPERM),
        ("chmod", (0, 0o1777), (0, 0o2000), errno.EPERM),
        ("fchmod", (0, 0o1777), (0, 0o4000 | high), errno.EPERM),
        ("fchmodat", (0, 0, 0o1777), (0, 0, 0o4000), errno.EPERM),
        ("fchmodat2", (0, 0, 0o1777), (0, 0, 0o2000), errno.EPERM),
        ("mknod", (0, 0o100644), (0, 0o104755), errno.EPERM),
        ("mknodat", (0, 0, 0o100644), (0, 0, 0o102755), errno.EPERM),
        ("fcntl", (0, 1025), (0, 1024), errno.EPERM),
        ("fcntl", (0, 1031), (0, 1026 | high), errno.EPERM),
        ("sendto", (0, 0, 0, 0x4000), (0, 0, 0, 0x20004000), errno.EOPNOTSUPP),
        ("sendmsg", (0, 0, 0x4000), (0, 0, 0x20000000), errno.EOPNOTSUPP),
        ("sendmmsg", (0, 0, 0, 0x4000), (0, 0, 0, 0x20000000), errno.EOPNOTSUPP),
        ("personality", (0xFFFFFFFF,), (0x0400000,), errno.EPERM),
        ("socketpair", (1, 2), (2, 1), errno.EACCES),
    ):
        assert judge_by_name(code, column, name, *harmless) in ("allow", None)
        assert judge_by_name(code, column, name, *harmful) in (answer, None)


@pytest.mark.parametrize("column", [X86_64, AARCH64])
def test_memory_that_no_process_has_is_refused_by_a_filter_of_its_own(column: int) -> None:
    usual, countable = seccomp.build_filter(column, ()), seccomp.build_memory_filter(column)
    for name, arguments in (
        ("memfd_create", ()),
        ("mmap", (0, 0, 0, 0x21)),
        ("mmap", (0, 0, 0, 0x23)),
        ("mmap", (0, 0, 0, 0x4021)),
    ):
        assert judge_by_name(usual, column, name, *arguments) == "allow"
        assert judge_by_name(countable, column, name, *arguments) == errno.ENOMEM
    for flags in (0x22, 0x01, 0x02, 0x4022):  # private, or of a file
        assert judge_by_name(countable, column, "mmap", 0, 0, 0, flags) == "allow"
    assert judge(countable, column, 600) == "allow"
    assert judge(countable, column, 0, architecture=0x40000003) == "kill"
