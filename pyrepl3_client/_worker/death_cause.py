"""The likely cause of a worker's death, and whether what ran in it has ended it.

The parent knows an exit status, a signal, the worker's stderr and its peak of memory. Who has sent a signal
is known where Python code in the worker did, by the mark that this leaves on stderr. Else it is unknown: a
crash signal from outside counts as the code's own; one that the code sends by `ctypes` or a shell's `kill`
counts as one from outside, unless memory tells otherwise.
"""

import os
import re
import signal as signals
from typing import Final

from pyrepl3_client._launch.worker import ExitStatus
from pyrepl3_client.errors import describe_exit
from pyrepl3_client.results import LIMIT_PREFIX, DeathCertificate
from pyrepl3_schemas.constants import OWN_SIGNAL_MARK

_NEAR_LIMIT: Final = 0.9
"""Share of the memory limit above which a peak counts as having reached it."""
_MOST_OF_MACHINE: Final = 0.5
"""Share of the machine's memory above which a peak makes a SIGKILL one of the kernel, for want of memory."""
_OWN_SIGNALS: Final = frozenset(
    {
        signals.SIGSEGV, signals.SIGBUS, signals.SIGABRT, signals.SIGFPE, signals.SIGILL, signals.SIGTRAP,
        signals.SIGSYS, signals.SIGXCPU, signals.SIGXFSZ, signals.SIGALRM, signals.SIGVTALRM, signals.SIGPROF,
        signals.SIGPIPE,
    }
)  # fmt: skip
"""Signals that a process gets for what it has done itself, or has asked for."""
_SIGNAL_MARKS: Final = re.compile(rf"^{re.escape(OWN_SIGNAL_MARK)}(\d+)$", re.MULTILINE)
_OOM_KILL: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


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
    machine_out: bool = False,
) -> str:
    """Return the likely cause of a worker's end in words. The strongest evidence decides.

    Args:
        exit_code: its exit status, or None.
        signal: the number of the signal that ended it, or None.
        reason: why the client killed it, or empty.
        stderr: the end of what it wrote to its stderr.
        peak_rss: largest resident memory that it ever had, in bytes, if that is known.
        max_memory: its memory limit in bytes, if it has one.
        machine_out: whether it was killed since the machine's memory ran out; see `machine_out_of_memory`.
    """
    if reason:
        return reason if reason.startswith(LIMIT_PREFIX) else f"killed by us: {reason}"
    if signal is not None and sent_by_code(signal, stderr):
        return f"{describe_exit(None, signal)}, by the code itself"
    if machine_out:
        return "memory"
    near_limit = _near_limit(peak_rss, max_memory)
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


def _near_limit(peak_rss: int | None, max_memory: int | None) -> bool:
    return max_memory is not None and peak_rss is not None and peak_rss > _NEAR_LIMIT * max_memory


def machine_out_of_memory(
    signal: int | None, reason: str, peak_rss: int | None, *, kernel_has_killed: bool
) -> bool:
    """Return whether a worker was killed by the kernel, most likely, because the machine's memory ran out.

    Args:
        signal: the number of the signal that ended it, or None.
        reason: why the client killed it, or empty.
        peak_rss: largest resident memory that it ever had, in bytes, if that is known.
        kernel_has_killed: whether the kernel has killed processes for that, since the worker began.
    """
    if reason or signal != signals.SIGKILL:
        return False
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return kernel_has_killed or (peak_rss is not None and peak_rss > _MOST_OF_MACHINE * machine)


def sent_by_code(signal: int, stderr: str) -> bool:
    """Return whether Python code in the worker has sent the signal that ended it, by its stderr's end."""
    marks = _SIGNAL_MARKS.findall(stderr)
    return bool(marks) and int(marks[-1]) == signal


def ended_by_code(
    exit_code: int | None,
    signal: int | None,
    reason: str,
    *,
    stderr: str = "",
    peak_rss: int | None = None,
    max_memory: int | None = None,
    machine_out: bool = False,
    broke_protocol: bool = False,
) -> bool:
    """Return whether what ran in a worker has ended it, as far as that can be known.

    Args:
        exit_code: its exit status, or None.
        signal: the number of the signal that ended it, or None.
        reason: why the client killed it, or empty.
        stderr: the end of what it wrote to its stderr.
        peak_rss: largest resident memory that it ever had, in bytes, if that is known.
        max_memory: its memory limit in bytes, if it has one.
        machine_out: whether the machine's memory ran out.
        broke_protocol: whether the client killed it for what it had sent, or had not read.
    """
    if reason:
        return broke_protocol or reason.startswith(LIMIT_PREFIX)
    if signal is not None:
        known = signal in _OWN_SIGNALS or sent_by_code(signal, stderr)
        return known or machine_out or _near_limit(peak_rss, max_memory)
    return exit_code is not None


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, or 0 if they are not counted.

    Those in our control group, where it counts them, else all on this machine.
    """
    for path in (*_own_memory_events(), "/proc/vmstat"):
        try:
            with open(path, encoding="ascii") as file:
                found = _OOM_KILL.search(file.read())
        except OSError:
            continue
        if found is not None:
            return int(found[1])
    return 0


def _own_memory_events() -> list[str]:
    """Return where our control group would count such kills, in version 2 and 1."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, UnicodeDecodeError):
        return []
    unified = [f"/sys/fs/cgroup{path}/memory.events" for _, kinds, path in groups if not kinds]
    own = [
        f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        for _, kinds, path in groups
        if kinds.split(",") == ["memory"]
    ]
    return [*own, *unified]


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


def certificate(
    status: ExitStatus,
    stderr: str,
    *,
    pid: int,
    incarnation: int,
    reason: str = "",
    max_memory: int | None = None,
    kernel_has_killed: bool = False,
    broke_protocol: bool = False,
    running: tuple[str, ...] = (),
) -> DeathCertificate:
    """Return all that is known of a worker's end.

    Args:
        status: how its process ended.
        stderr: the end of what it wrote to its stderr.
        pid: its process id.
        incarnation: its number in its session; 0 for one that waited in a pool.
        reason: why the client killed it, or empty.
        max_memory: its memory limit in bytes, if it has one.
        kernel_has_killed: whether the kernel has killed processes for want of memory, since the worker began.
        broke_protocol: whether the client killed it for what it had sent, or had not read.
        running: ids of the executions that were under way.
    """
    exit_code, signal, peak = status.exit_code, status.signal, status.peak_rss
    machine_out = machine_out_of_memory(signal, reason, peak, kernel_has_killed=kernel_has_killed)
    return DeathCertificate(
        cause=likely_cause(
            exit_code, signal, reason, stderr, peak_rss=peak, max_memory=max_memory, machine_out=machine_out
        ),
        pid=pid,
        incarnation=incarnation,
        exit_code=exit_code,
        signal=signal,
        stack=fault_stack(stderr),
        peak_rss=peak,
        stderr=stderr,
        running=running,
        reason=reason,
        own_doing=ended_by_code(
            exit_code, signal, reason,
            stderr=stderr, peak_rss=peak, max_memory=max_memory, machine_out=machine_out,
            broke_protocol=broke_protocol,
        ),
    )  # fmt: skip


def fault_stack(stderr: str) -> str:
    """Return the lines of a worker's stderr that faulthandler wrote; empty when it wrote none."""
    return "\n".join(match.group(0) for match in _FAULT_LINES.finditer(stderr))
