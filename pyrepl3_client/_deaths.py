"""Why a worker died, as far as anybody can tell: the certificate that every death comes with."""

import re
import signal as signals
from typing import Final

import msgspec

from pyrepl3_client.errors import WorkerDied

_FAULT: Final = re.compile(
    r"^(Fatal Python error: .*|Current thread 0x.*|Thread 0x.*|  File \".*)$", re.MULTILINE
)
_LIMIT: Final = "limit: "
_SPARED: Final = 0.9
"""A peak of this share of the limit is taken as having met it."""


class DeathCertificate(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a worker ended, and what it was doing. Sizes in bytes."""

    cause: str
    """The likely cause in words: `killed by us: …`, `segmentation fault`, `out of memory`, …."""
    pid: int = 0
    incarnation: int = 1
    exit_code: int | None = None
    signal: int | None = None
    stack: str = ""
    """The stack that faulthandler printed, if it did."""
    peak_rss: int | None = None
    """Most memory that it ever had, None when nobody knows."""
    stderr: str = ""
    """The last lines that the worker wrote to its own stderr."""
    running: tuple[str, ...] = ()
    """Ids of the executions that were under way, the one that ran first."""
    reason: str = ""
    """Why we ended it, when we did."""

    @property
    def over_limit(self) -> bool:
        """Whether it had used more than its limits allow: what it ran would do so again."""
        return self.reason.startswith(_LIMIT) or self.signal == signals.SIGXCPU

    def __str__(self) -> str:
        """Say it in one line."""
        memory = "" if self.peak_rss is None else f"; peak memory {self.peak_rss / 1e6:,.0f} MB"
        running = f"; running: {self.running[0]}" if self.running else ""
        return f"worker {self.pid} (incarnation {self.incarnation}) died: {self.cause}{memory}{running}"


def over_limit(name: str, most: int, used: str, processes: int) -> str:
    """Give the reason for ending a worker whose processes, together, have used more than one is allowed.

    Args:
        name: of the field of `ResourceLimits`.
        most: the figure there.
        used: what they have used, in words.
        processes: how many they are.
    """
    whose = "its process" if processes == 1 else f"its {processes} processes together"
    return f"{_LIMIT}{used} in {whose}, over {name}={most}; raise it in the ResourceLimits if that is too low"


def likely_cause(
    exit_code: int | None,
    signal: int | None,
    reason: str,
    stderr: str,
    *,
    peak_rss: int | None = None,
    max_memory: int | None = None,
) -> str:
    """Put the likely cause of a worker's end into words, most telling evidence first.

    Args:
        exit_code: its exit status.
        signal: what killed it.
        reason: why we ended it, or empty.
        stderr: its last words.
        peak_rss: most bytes that it had.
        max_memory: most bytes that it was allowed.
    """
    if reason:
        return reason if reason.startswith(_LIMIT) else f"killed by us: {reason}"
    near_limit = max_memory is not None and peak_rss is not None and peak_rss > _SPARED * max_memory
    if "MemoryError" in stderr or "Cannot allocate memory" in stderr or near_limit:
        limit = "" if max_memory is None else f" (limit {max_memory / 1e6:,.0f} MB; raise max_memory_usage)"
        return f"out of memory{limit}"
    if signal is not None:
        return _of_signal(signal)
    if exit_code == 0:
        return "exit code 0: the code ended its own process (os._exit(0)), or its stream was closed"
    if exit_code is not None and "Traceback (most recent call last)" in stderr:
        return f"exit code {exit_code}: the worker itself failed, see its stderr"
    if exit_code is None:
        return "unknown: its exit status was lost (this program ignores SIGCHLD, or waits for all children)"
    return f"exit code {exit_code}: the code ended its own process (os._exit)"


def _of_signal(number: int) -> str:
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
            try:
                name = signals.Signals(number).name
            except ValueError:
                name = f"signal {number}"
            return f"killed by {name}"


def fault_stack(stderr: str) -> str:
    """Give the part of a worker's last words that faulthandler wrote; empty when it wrote nothing."""
    return "\n".join(match.group(0) for match in _FAULT.finditer(stderr))


def died(
    what: str, certificate: DeathCertificate | None, running: tuple[str, ...] = (), attempts: int = 1
) -> WorkerDied:
    """Give a death as an error of its own."""
    if certificate is None:
        return WorkerDied(what, running=running, attempts=attempts)
    return WorkerDied(
        what,
        certificate.exit_code,
        certificate.signal,
        certificate.stderr,
        running,
        certificate.reason,
        certificate.incarnation,
        attempts,
        certificate,
    )
