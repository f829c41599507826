"""The likely cause of a worker's death, in words, from its exit status, its stderr and its memory."""

import re
import signal as signals
from typing import Final

from pyrepl3_client.errors import LIMIT_PREFIX, describe_exit

_NEAR_LIMIT: Final = 0.9
"""Share of the memory limit above which a peak counts as having reached it."""


_FAULT_LINES: Final = re.compile(
    r"^(Fatal Python error: .*|Current thread 0x.*|Thread 0x.*|  File \".*)$", re.MULTILINE
)
"""Lines that faulthandler writes."""


def limit_reason(name: str, limit: int, used: str, processes: int) -> str:
    """Return the reason for killing a worker whose processes together have used more than they may.

    Args:
        name: the field of `ResourceLimits` that sets the limit.
        limit: its value.
        used: what the processes have used, in words.
        processes: how many they are.
    """
    whose = "its process" if processes == 1 else f"its {processes} processes together"
    return (
        f"{LIMIT_PREFIX}{used} in {whose}, over {name}={limit}; "
        "raise it in the ResourceLimits if that is too low"
    )


def likely_cause(
    exit_code: int | None,
    signal: int | None,
    reason: str,
    stderr: str,
    *,
    peak_rss: int | None = None,
    max_memory: int | None = None,
) -> str:
    """Return the likely cause of a worker's end in words. The strongest evidence decides.

    Args:
        exit_code: its exit status, or None.
        signal: the number of the signal that ended it, or None.
        reason: why the client killed it, or empty.
        stderr: the end of what it wrote to its stderr.
        peak_rss: largest resident memory that it ever had, in bytes, if that is known.
        max_memory: its memory limit in bytes, if it has one.
    """
    if reason:
        return reason if reason.startswith(LIMIT_PREFIX) else f"killed by us: {reason}"
    near_limit = max_memory is not None and peak_rss is not None and peak_rss > _NEAR_LIMIT * max_memory
    if "MemoryError" in stderr or "Cannot allocate memory" in stderr or near_limit:
        limit = "" if max_memory is None else f" (limit {max_memory / 1e6:,.0f} MB; raise max_memory_usage)"
        return f"out of memory{limit}"
    if signal is not None:
        return _cause_of_signal(signal)
    if exit_code == 0:
        return "exit code 0: the code ended its own process (os._exit(0)), or its stream was closed"
    if exit_code is not None and "Traceback (most recent call last)" in stderr:
        return f"exit code {exit_code}: the worker itself failed, see its stderr"
    if exit_code is None:
        return "unknown: its exit status was lost (this program ignores SIGCHLD, or waits for all children)"
    return f"exit code {exit_code}: the code ended its own process (os._exit)"


def _cause_of_signal(number: int) -> str:
    match number:
        case signals.SIGSEGV:
            return "segmentation fault (SIGSEGV)"
        case signals.SIGBUS:
            return "bus error (SIGBUS): a mapped file was cut short, or the disk or shared memory is full"
        case signals.SIGABRT:
            return "aborted (SIGABRT): the interpreter or a C library found itself in an impossible state"
        case signals.SIGKILL:
            return "killed from outside (SIGKILL): by the kernel when memory ran out, or by a kill -9"
        case signals.SIGXCPU:
            return "CPU time limit (SIGXCPU); raise max_cpu_seconds in the ResourceLimits"
        case signals.SIGXFSZ:
            return "file size limit (SIGXFSZ); raise max_file_bytes"
        case signals.SIGSYS:
            return "a system call that its confinement forbids (SIGSYS)"
        case signals.SIGFPE:
            return "arithmetic error in C code (SIGFPE)"
        case signals.SIGILL:
            return "illegal instruction in C code (SIGILL)"
        case _:
            return describe_exit(None, number)


def fault_stack(stderr: str) -> str:
    """Return the lines of a worker's stderr that faulthandler wrote; empty when it wrote none."""
    return "\n".join(match.group(0) for match in _FAULT_LINES.finditer(stderr))
