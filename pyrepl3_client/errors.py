"""The errors that the client raises, and the certificate that explains a worker's death.

The errors are one tree. An error's type says on whose side the fault lies:

PyRepl3Error
    ExecutionFailed           the user's code raised
        ExecutionTimeout        ... it ran longer than its timeout (also a TimeoutError)
        ExecutionCancelled      ... it was cancelled
    WorkerDied                the worker process ended, or the client killed it
        SpawnError              ... before it was ready
    WorkerUnresponsive        the worker lives and does not answer (also a TimeoutError)
    ProtocolError             the worker, or the client, broke the protocol
    SessionClosed             the caller used a session that is closed
        PoolClosed              ... or a pool that gives no sessions, or no more of them
    PoolTimeout               a pool had no room for a session in time (also a TimeoutError)
    ExecutionIdConflict       the caller used an execution id that stands for another execution
    CapabilityError           a host function cannot be offered, its value cannot be sent, or it would
                              wait for itself
    TransferError             a variable cannot be set or got
    OutputNotKept             a part of what code has written is not kept
    SessionFileError          a file of the session cannot be used (also an OSError)
        SessionFileNotFound     ... it is not there (also a FileNotFoundError)
    ReplayDivergence          a replayed execution asked for something else than its record holds
    StoreError                the store failed, or cannot be used
        SessionBusy             ... the session has another owner
        LeaseLost               ... it has another owner by now, and had this one
        WeakerConfinement       ... the session has run more confined than it is opened
        StoreBusy               ... another process holds the file's lock
        BridgeTimeout           ... an answer did not come in time (also a TimeoutError)
        CheckpointTooLarge      ... the namespace takes more than one checkpoint may
        StoreFull               ... the session has on record what it may have

A `WorkerDied` carries a `DeathCertificate`: exit status, likely cause, peak memory, last stderr and the
executions that were running. The functions below it make a certificate's texts from the evidence.
"""

import signal as signals
from datetime import UTC, datetime
from typing import Final, Self

from pyrepl3_client._text import printable
from pyrepl3_client.results import DeathCertificate, ErrorInfo, ExecutionResult
from pyrepl3_schemas.errors import ProtocolError as WireError

__all__ = [
    "BridgeTimeout",
    "CapabilityError",
    "CheckpointTooLarge",
    "DeathCertificate",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionIdConflict",
    "ExecutionTimeout",
    "LeaseLost",
    "OutputNotKept",
    "PoolClosed",
    "PoolTimeout",
    "ProtocolError",
    "PyRepl3Error",
    "ReplayDivergence",
    "SessionBusy",
    "SessionClosed",
    "SessionFileError",
    "SessionFileNotFound",
    "SpawnError",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "TransferError",
    "WeakerConfinement",
    "WorkerDied",
    "WorkerUnresponsive",
]

_PARTS_OF_OWNER: Final = 6
_SHOWN_CHARS: Final = 200
"""How much of a long path an error shows: its end."""

# --- the tree -----------------------------------------------------------------------------------------


class PyRepl3Error(Exception):
    """The root of all errors that this library raises on purpose.

    Their texts hold no control characters but line ends and tabs, wherever a part of them comes from.
    """

    def __str__(self) -> str:
        """Return what happened."""
        return printable(super().__str__())


class ExecutionFailed(PyRepl3Error):  # noqa: N818 - the contract fixes these names
    """The executed code failed. The error's text is the user's traceback.

    Args:
        result: the whole outcome, with `result.error` set.
    """

    def __init__(self, result: ExecutionResult) -> None:
        """Keep the outcome as the only argument, so that the error pickles."""
        super().__init__(result)
        self.result = result

    @property
    def error(self) -> ErrorInfo:
        """What the code raised.

        Raises:
            TypeError: `result` is the outcome of an execution that did not fail.
        """
        error = self.result.error
        if error is None:
            raise TypeError("this execution did not fail")
        return error

    def __str__(self) -> str:
        """Return the user's traceback, or the exception's own line where there is none."""
        return str(self.error)


class ExecutionTimeout(ExecutionFailed, TimeoutError):  # noqa: N818
    """The executed code was stopped because its timeout had passed."""


class ExecutionCancelled(ExecutionFailed):
    """The executed code was stopped: by `cancel`, an interrupt, or the end of the task that awaited it."""


class WorkerDied(PyRepl3Error):  # noqa: N818
    """The worker process has ended, and the executions that it ran are lost with it.

    Args:
        what: the event in words ("the worker of session 'a' died").
        exit_code: its exit status; None when a signal ended it, or when it is not known.
        signal: the number of the signal that ended it, or None.
        stderr: the last lines that the worker wrote to its own stderr.
        running: ids of the executions that were lost.
        reason: why the client killed it; empty when it did not.
        incarnation: which worker of its session it was, counted from 1.
        attempts: how many workers the execution has taken.
        certificate: all that is known of the death; None when the worker has not ended yet.
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
        certificate: DeathCertificate | None = None,
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
        """Return what happened, how the worker ended, what was running, and the end of its stderr."""
        text = self.what
        ending = describe_exit(self.exit_code, self.signal)
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
        return printable(text)


class SpawnError(WorkerDied):
    """A worker could not be started, or ended before it was ready."""


class WorkerUnresponsive(PyRepl3Error, TimeoutError):  # noqa: N818
    """The worker lives and did not answer a request in time."""


class ProtocolError(PyRepl3Error, WireError):
    """A rule of the protocol was broken; `offset` is the byte of the stream, where one is at fault.

    It is raised for what the client may not send (code with lone surrogates, a frame over the limit). A
    worker that breaks a rule is killed: the error is then the `__cause__` of the `WorkerDied`.
    """


class SessionClosed(PyRepl3Error):  # noqa: N818
    """The session is closed, or was closed before the answer came."""


class PoolClosed(SessionClosed):
    """The pool is not open, is drained, or was closed before the session could be had."""


class PoolTimeout(PyRepl3Error, TimeoutError):  # noqa: N818 - as ExecutionTimeout
    """No session could be had within `acquire_timeout`: as many as the pool may have are in use."""


class ExecutionIdConflict(PyRepl3Error):  # noqa: N818
    """The execution id stands for another execution already."""


class CapabilityError(PyRepl3Error):
    """A host function cannot be offered so, its value cannot be sent, or it would wait for itself."""


class TransferError(PyRepl3Error):
    """A variable could not be set or got. The text says which, where inside of its value, and why."""


class OutputNotKept(PyRepl3Error):  # noqa: N818
    """A part of what code has written is not kept. The text says why, and which part is."""


class SessionFileError(PyRepl3Error, OSError):
    """A file or folder of the session cannot be used. The text names it, says why, and what to do.

    Args:
        path: the path, as the caller gave it.
        why: what is wrong with it, and what to do.
        number: the system's number for that (`errno`), or None.
    """

    def __init__(self, path: str, why: str, number: int | None = None) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(path, why, number)
        self.path = path
        self.why = why
        self.errno = number

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, int | None]]:
        """Pickle by the arguments."""
        return type(self), (self.path, self.why, self.errno)

    def __str__(self) -> str:
        """Return the path, quoted and shortened, and why."""
        shown = self.path if len(self.path) <= _SHOWN_CHARS else f"…{self.path[-_SHOWN_CHARS:]}"
        return f"{shown!r} {self.why}"


class SessionFileNotFound(SessionFileError, FileNotFoundError):  # noqa: N818 - like FileNotFoundError
    """A file or folder of the session is not there, or is none that its code may see."""


class ReplayDivergence(PyRepl3Error):  # noqa: N818
    """A replayed execution asked for something else than its record holds."""


class StoreError(PyRepl3Error):
    """The durable store failed, cannot be opened, or cannot be used."""


class SessionBusy(StoreError):  # noqa: N818 - a state of the session
    """The session has another owner.

    Args:
        session_id: the session.
        owner: who owns it.
        expires_at: when that lease lapses unless renewed, in milliseconds since the epoch.
        remaining: seconds until then.
    """

    def __init__(self, session_id: str, owner: str, expires_at: int, remaining: float) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(session_id, owner, expires_at, remaining)
        self.session_id = session_id
        self.owner = owner
        self.expires_at = expires_at
        self.remaining = remaining

    def __str__(self) -> str:
        """Return who owns it, for how long, and what to do."""
        return (
            f"session {self.session_id!r} is owned by {describe_owner(self.owner)}, whose lease lapses in "
            f"{self.remaining:.1f} s unless renewed; close it there, wait, or use another session id"
        )


class WeakerConfinement(StoreError):  # noqa: N818 - names what happened, like SessionClosed
    """The session's code ran under a stronger confinement than it is to be opened with now.

    Attributes:
        session_id: the session.
        recorded: the level on record.
        level: the level that it would have now.
    """

    def __init__(self, session_id: str, recorded: str, level: str, what: str) -> None:
        """Describe the refusal; `what` says in words where the weaker level comes from."""
        super().__init__(session_id, recorded, level, what)
        self.session_id = session_id
        self.recorded = recorded
        self.level = level
        self._what = what

    def __str__(self) -> str:
        """Name the session, both levels, and what to do."""
        return (
            f"session {self.session_id!r} has run with confinement={self.recorded!r}, and {self._what}: what "
            f"its code has saved would run at level {self.level!r}. Open it with {self.recorded!r}, or with "
            "allow_weaker_confinement=True if you trust what has run in it; none of it has been run now, and "
            "its record is as it was"
        )


class LeaseLost(StoreError):  # noqa: N818 - names what happened, like SessionClosed
    """The session has another owner by now (or none): this lease no longer counts.

    Args:
        session_id: the session.
        owner: who owns it now, or None.
        since: when that owner has taken it, in milliseconds since the epoch; None if that is not known.
    """

    def __init__(self, session_id: str, owner: str | None, since: int | None = None) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(session_id, owner, since)
        self.session_id = session_id
        self.owner = owner
        self.since = since

    def __str__(self) -> str:
        """Return who has the session now, since when, why, and what to do."""
        why = "this process had not renewed its lease in time (it was stopped, or the machine slept)"
        if self.owner is None:
            return (
                f"session {self.session_id!r} was taken over by another process and given up again, as {why};"
                " nothing more can be recorded from here: open the session again"
            )
        when = "" if self.since is None else f" since {_local_time(self.since)}"
        return (
            f"session {self.session_id!r} belongs to {describe_owner(self.owner)}{when}, as {why}; nothing "
            "more can be recorded from here: go on there, or close it there and open the session again"
        )


class StoreBusy(StoreError):  # noqa: N818 - a state of the file, as SessionClosed is one of a session
    """Another process held the store's write lock for longer than the busy timeout."""


class BridgeTimeout(StoreError, TimeoutError):  # noqa: N818 - as ExecutionTimeout
    """An answer did not come in time.

    Args:
        capability: what was asked for: a host function's name, `input`, or `execute`.
        execution_id: for which execution.
        request_id: the correlation key of the request.
        timeout: seconds that were waited.
    """

    def __init__(self, capability: str, execution_id: str, request_id: str, timeout: float) -> None:
        """Add a note with what the text leaves out."""
        super().__init__(capability, execution_id, request_id, timeout)
        self.capability = capability
        self.execution_id = execution_id
        self.request_id = request_id
        self.timeout = timeout
        self.add_note(
            f"(capability={capability}, execution_id={execution_id}, request_id={request_id}, "
            f"timeout={timeout:g})"
        )

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str, float]]:
        """Pickle by the arguments: a TimeoutError is an OSError, which takes four for something else."""
        return type(self), (self.capability, self.execution_id, self.request_id, self.timeout)

    def __str__(self) -> str:
        """Return what did not come, and what to do."""
        return (
            f"{self.capability} of execution {self.execution_id!r} was not answered within "
            f"{self.timeout:g} s; it stays recorded, ask for it again under the same id"
        )


class CheckpointTooLarge(StoreError):  # noqa: N818 - names what happened, like SessionClosed
    """A namespace takes more than one checkpoint may."""


# --- deaths ----------------------------------------------------------------------------


class StoreFull(StoreError):  # noqa: N818 - names what happened, like SessionClosed
    """The session has on record what it may have (`max_store_bytes`). All of that stays, and it goes on."""


def make_worker_died(
    what: str, certificate: DeathCertificate | None, running: tuple[str, ...] = (), attempts: int = 1
) -> WorkerDied:
    """Return a new error for a death, since each caller that awaits an outcome raises its own.

    Args:
        what: the event in words.
        certificate: what is known of the death, if anything is.
        running: ids of the executions that were lost.
        attempts: how many workers the execution has taken.
    """
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


def failure_as_data(failure: BaseException) -> ErrorInfo | None:
    """Return a failure that the code itself can bring about, as data; None for any other.

    Args:
        failure: why an execution has no outcome.
    """
    if isinstance(failure, ReplayDivergence):
        return ErrorInfo(kind="diverged", type="ReplayDivergence", message=str(failure))
    if isinstance(failure, WorkerDied) and not isinstance(failure, SpawnError):
        return ErrorInfo(
            kind="died", type="WorkerDied", message=str(failure), certificate=failure.certificate
        )
    return None


def describe_exit(exit_code: int | None, signal: int | None) -> str:
    """Return how a process ended, in words: `killed by SIGKILL`, `exit code 3`; empty if it is not known.

    Args:
        exit_code: its exit status, or None.
        signal: the number of the signal that ended it, or None.
    """
    if signal is not None:
        try:
            name = signals.Signals(signal).name
        except ValueError:
            name = f"signal {signal}"
        return f"killed by {name}"
    return "" if exit_code is None else f"exit code {exit_code}"


# --- owners ----------------------------------------------------------------------------


def describe_owner(owner: str) -> str:
    """Return an owner of a session in words: `process 4711 on host`.

    Args:
        owner: as the lease names it, `{host}/{pid}/…`; anything else is returned as it is.
    """
    parts = owner.split("/")
    return f"process {parts[1]} on {parts[0]}" if len(parts) == _PARTS_OF_OWNER else owner


def _local_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().isoformat(" ", "seconds")
