"""What can go wrong on the parent's side, as one tree. The type says whose doing it was.

PyRepl3Error
    ExecutionFailed           the user's code: it raised
        ExecutionTimeout        ... it ran out of time (also a TimeoutError)
        ExecutionCancelled      ... it was cancelled
    WorkerDied                the worker process ended, by itself or by us
        SpawnError              ... before it was ready
    WorkerUnresponsive        the worker lives and does not answer (also a TimeoutError)
    ProtocolError             the worker, or we, broke the protocol
    SessionClosed             you: the session was closed already
    ExecutionIdConflict       you: the execution id is taken
    CapabilityError           a host function that cannot be offered or answered for
    ReplayDivergence          a replay asked for something else than its record holds
    StoreError                the store failed, or cannot be used
"""

import signal as signals
from typing import TYPE_CHECKING

from pyrepl3_schemas.errors import ProtocolError as WireError

if TYPE_CHECKING:
    from pyrepl3_client._deaths import DeathCertificate
    from pyrepl3_client.results import ErrorInfo, ExecutionResult


class PyRepl3Error(Exception):
    """The root of all errors that this library raises on purpose."""


class ExecutionFailed(PyRepl3Error):  # noqa: N818 - the contract fixes these names
    """The executed code failed. Its text is the user's traceback.

    Args:
        result: the whole outcome, with `result.error` set.
    """

    def __init__(self, result: "ExecutionResult") -> None:
        """Keep the outcome as the only argument, so that the error pickles."""
        super().__init__(result)
        self.result = result

    @property
    def error(self) -> "ErrorInfo":
        """What the code raised."""
        error = self.result.error
        if error is None:
            raise TypeError("this execution did not fail")
        return error

    def __str__(self) -> str:
        """Give the user's traceback, or the exception's line where there is none."""
        return str(self.error)


class ExecutionTimeout(ExecutionFailed, TimeoutError):  # noqa: N818
    """The executed code was stopped since its time was up."""


class ExecutionCancelled(ExecutionFailed):
    """The executed code was stopped by `cancel`, an interrupt, or the end of the task awaiting it."""


class WorkerDied(PyRepl3Error):  # noqa: N818
    """The worker process has ended, and what it ran is lost with it.

    Args:
        what: the event in words ("the worker of session 'a' died").
        exit_code: its exit status, or None when a signal ended it or nobody knows.
        signal: the number of the signal that ended it, or None.
        stderr: the last lines the worker wrote to its own stderr.
        running: ids of the executions that were lost.
        reason: why we ended it, when we did.
        incarnation: which worker of its session it was, counted from 1.
        attempts: how many workers the execution has cost.
        certificate: all that is known of the death.
    """

    def __init__(
        self,
        what: str,
        exit_code: int | None = None,
        signal: int | None = None,
        stderr: str = "",
        running: tuple[str, ...] = (),
        reason: str = "",
        incarnation: int = 1,
        attempts: int = 1,
        certificate: "DeathCertificate | None" = None,
    ) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(what, exit_code, signal, stderr, running, reason, incarnation, attempts, certificate)
        self.what = what
        self.exit_code = exit_code
        self.signal = signal
        self.stderr = stderr
        self.running = running
        self.reason = reason
        self.incarnation = incarnation
        self.attempts = attempts
        self.certificate = certificate

    def __str__(self) -> str:
        """Say what happened, how it ended, what was running, and its last words."""
        text = self.what
        ending = describe_ending(self.exit_code, self.signal)
        if ending:
            text += f" ({ending})"
        if self.reason:
            text += f": {self.reason}"
        elif self.certificate is not None and self.certificate.cause:
            text += f", likely cause: {self.certificate.cause}"
        if self.attempts > 1:
            text += f"; after {self.attempts} attempts"
        if self.running:
            shown = ", ".join(self.running[:5])
            text += (
                f"; running: {shown}{f' and {len(self.running) - 5} more' if len(self.running) > 5 else ''}"
            )
        if self.stderr:
            text += f"\nlast lines of its stderr:\n{self.stderr}"
        return text


class SpawnError(WorkerDied):
    """A worker could not be started, or ended before it was ready."""


class WorkerUnresponsive(PyRepl3Error, TimeoutError):  # noqa: N818
    """The worker lives and did not answer a request in time."""


class ProtocolError(PyRepl3Error, WireError):
    """A rule of the protocol was broken; `offset` is the byte of the stream, where one is at fault.

    Raised as such for what we may not send (code with lone surrogates, a frame over the limit). What
    a worker breaks ends that worker: it is the `__cause__` of the `WorkerDied`.
    """


class SessionClosed(PyRepl3Error):  # noqa: N818
    """The session is closed, or was closed before the answer came."""


class ExecutionIdConflict(PyRepl3Error):  # noqa: N818
    """The execution id stands for another execution already."""


class CapabilityError(PyRepl3Error):
    """A host function cannot be offered under its name, or its value cannot cross to the worker."""


class ReplayDivergence(PyRepl3Error):  # noqa: N818
    """A replayed execution asked for something else than its record holds."""


class StoreError(PyRepl3Error):
    """The durable store failed, cannot be opened, or cannot be used."""


def describe_ending(exit_code: int | None, signal: int | None) -> str:
    """Put a process's end into words: `killed by SIGKILL`, `exit code 3`, or nothing."""
    if signal is not None:
        try:
            name = signals.Signals(signal).name
        except ValueError:
            name = f"signal {signal}"
        return f"killed by {name}"
    return "" if exit_code is None else f"exit code {exit_code}"
