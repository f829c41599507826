"""The memory limit of the process, and how much memory and CPU time it uses."""

import os

# By name, as `open`: the code may replace the module's own.
from resource import RLIM_INFINITY, RLIMIT_DATA, RUSAGE_SELF, getrlimit, getrusage, setrlimit
from typing import Final

_open: Final = open
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def data_bytes() -> int:
    """Return the private writable memory of this process now, in bytes (VmData of proc(5))."""
    with _open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[5]) * _PAGE_BYTES


def resident_bytes() -> int:
    """Return the resident memory of this process now, in bytes."""
    with _open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def cpu_seconds() -> float:
    """Return the CPU time of this process (user and system), in seconds."""
    usage = getrusage(RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def limit_memory(max_bytes: int) -> None:
    """Let the process hold `max_bytes` more private memory than now; past it, `MemoryError`.

    RLIMIT_DATA counts what a process can really write to. RLIMIT_AS would also count what libraries
    merely reserve (a BLAS library's threads reserve gigabytes), so that
    imports would fail though memory is free.
    """
    limit = data_bytes() + max_bytes
    hard = getrlimit(RLIMIT_DATA)[1]
    if hard != RLIM_INFINITY:
        limit = min(limit, hard)
    setrlimit(RLIMIT_DATA, (limit, limit))
