"""Whether what ran in a worker has ended it, by what the parent can know."""

import os
import signal

import pytest

from pyrepl3_client._worker.death_cause import ended_by_code, likely_cause, machine_out_of_memory, oom_kills
from pyrepl3_schemas.constants import OWN_SIGNAL_MARK

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
OWN = [
    "SIGSEGV",
    "SIGBUS",
    "SIGABRT",
    "SIGFPE",
    "SIGILL",
    "SIGTRAP",
    "SIGSYS",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGALRM",
]


@pytest.mark.parametrize("name", OWN)
def test_a_signal_for_what_a_process_does_is_its_own_doing(name: str) -> None:
    assert ended_by_code(None, signal.Signals[name], "")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1"])
def test_a_signal_that_others_send_is_not(name: str) -> None:
    assert not ended_by_code(None, signal.Signals[name], "", peak_rss=1000)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGUSR1"])
def test_a_signal_that_the_code_has_sent_is_its_own_doing_and_a_later_one_of_others_is_not(name: str) -> None:
    number = signal.Signals[name]
    stderr = f"more\n{OWN_SIGNAL_MARK}{int(number)}\nlast words"
    assert ended_by_code(None, number, "", stderr=stderr)
    assert likely_cause(None, number, "", stderr, machine_out=True) == f"killed by {name}, by the code itself"
    assert not ended_by_code(None, signal.SIGHUP, "", stderr=stderr)
    assert not ended_by_code(None, number, "it did not answer", stderr=stderr)
    assert not ended_by_code(None, number, "", stderr=f"not {stderr.splitlines()[1]}")


def test_an_exit_is_its_own_doing_and_a_lost_status_is_nobodys() -> None:
    assert ended_by_code(0, None, "")
    assert ended_by_code(7, None, "")
    assert not ended_by_code(None, None, "")


def test_what_we_kill_is_its_own_doing_for_a_limit_or_a_breach_alone() -> None:
    assert ended_by_code(None, 9, "limit: 5 s of CPU time")
    assert ended_by_code(None, 9, "it broke the protocol: …", broke_protocol=True)
    assert not ended_by_code(None, 9, "it did not answer")
    # The exit status says nothing of whose doing it was when we have killed it.
    assert not ended_by_code(3, None, "it did not answer")


def test_a_kill_at_the_memory_limit_is_its_own_doing() -> None:
    assert ended_by_code(None, 9, "", peak_rss=950, max_memory=1000)
    assert not ended_by_code(None, 9, "", peak_rss=500, max_memory=1000)


@pytest.mark.parametrize(
    ("number", "reason", "peak", "kernel_has_killed", "out"),
    [
        (9, "", MACHINE // 2 + 1, False, True),
        (9, "", MACHINE // 2, False, False),
        (9, "", None, False, False),
        (9, "", None, True, True),
        (15, "", MACHINE, True, False),
        (9, "it did not answer", MACHINE, True, False),
    ],
)
def test_a_kill_for_want_of_memory_is_told_by_the_peak_or_the_kernels_count(
    number: int, reason: str, peak: int | None, kernel_has_killed: bool, out: bool
) -> None:
    assert machine_out_of_memory(number, reason, peak, kernel_has_killed=kernel_has_killed) is out
    assert (likely_cause(None, number, reason, "", machine_out=out) == "memory") is out
    assert ended_by_code(None, number, reason, machine_out=out) is out


def test_the_kernels_count_is_a_number_that_does_not_fall() -> None:
    first = oom_kills()
    assert 0 <= first <= oom_kills()
