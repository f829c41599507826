"""The result of an execution, its error, and its worker's death, as the caller gets them."""

import signal as signals
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from pyrepl3_client._text import on_one_line, printable
from pyrepl3_schemas.codec import decode_value
from pyrepl3_schemas.display_budget import PLAIN_TEXT
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import (
    Changes,
    Display,
    Error,
    ErrorKind,
    ExceptionData,
    FileChanges,
    Frame,
    Result,
)

_REPR_CHARS: Final = 200
"""How much of a long text its repr shows."""
LIMIT_PREFIX: Final = "limit: "
"""Beginning of the reason for killing a worker whose process tree used more than it may."""


class DeathCertificate(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a worker ended, and what it was doing."""

    cause: str
    """The likely cause in words: `killed by us: …`, `segmentation fault`, `out of memory`, …; `memory` alone
    when the kernel killed it because the machine's memory ran out."""
    pid: int = 0
    """The worker's process id."""
    incarnation: int = 1
    """Which worker of its session it was, counted from 1; 0 for one that waited in a pool."""
    exit_code: int | None = None
    """Its exit status; None when a signal ended it, or when it is not known."""
    signal: int | None = None
    """The number of the signal that ended it, or None."""
    stack: str = ""
    """The stacks that faulthandler wrote; empty when it wrote none."""
    peak_rss: int | None = None
    """Largest resident memory that it ever had, in bytes; None when it is not known, as where the client had
    more when it started the worker: the kernel counts that as the worker's."""
    stderr: str = ""
    """The last lines that the worker wrote to its own stderr."""
    running: tuple[str, ...] = ()
    """Ids of the executions that were under way, the running one first."""
    reason: str = ""
    """Why the client killed it; empty when it did not."""
    own_doing: bool = False
    """Whether what ran in it ended it: a crash, an exit, a limit, the machine's memory, a broken protocol. It
    would do so again, so it is not run again. A kill from outside is not its doing."""

    @property
    def over_limit(self) -> bool:
        """Whether the worker used more than its limits allow: what it ran would do so again."""
        return self.reason.startswith(LIMIT_PREFIX) or self.signal == signals.SIGXCPU

    def __str__(self) -> str:
        """Return the death in one line."""
        memory = "" if self.peak_rss is None else f"; peak memory {self.peak_rss / 1e6:,.0f} MB"
        running = f"; running: {self.running[0]}" if self.running else ""
        which = f"(incarnation {self.incarnation})" if self.incarnation else "that waited in a pool"
        return on_one_line(f"worker {self.pid} {which} died: {self.cause}{memory}{running}")


class Completeness(msgspec.Struct, frozen=True):
    """Whether code is complete: whether an editor should run it, or let its user go on typing."""

    status: Literal["complete", "incomplete", "invalid"]
    indent: str
    """Blanks that the next line of incomplete code begins with."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An exception that the user's code raised, as data. `str()` of it is the traceback's text."""

    kind: ErrorKind | Literal["died", "diverged"]
    """`exception`, `compilation`, `timeout`, `cancelled`, `limit` or `protocol`; `died` when its worker ended
    (see `certificate`), `diverged` when it was run again and asked for what its record does not hold."""
    type: str
    """The exception's type name."""
    message: str
    """The exception's text."""
    notes: tuple[str, ...] = ()
    """The exception's notes (`add_note`)."""
    frames: tuple[Frame, ...] = ()
    """The traceback's frames in the user's own code, outermost first.

    Of over 150 the 50 outermost and the 100 innermost.
    """
    traceback: str = ""
    """The traceback as text, with its cause and group members; empty for a cause or a member."""
    cause: "ErrorInfo | None" = None
    """The exception that caused this one, if any."""
    members: tuple["ErrorInfo", ...] = ()
    """The exceptions of an exception group."""
    suggestion: str | None = None
    """For code that does not compile: a corrected version that does, if one was found."""
    certificate: DeathCertificate | None = None
    """For `died`: how the worker ended; None if it had not ended yet."""

    def __str__(self) -> str:
        """Return the traceback, or the exception's own line where there is none."""
        if self.traceback:
            return printable(self.traceback)
        return printable(f"{self.type}: {self.message}" if self.message else self.type)


class LazyText:
    """Text that arrived in pieces, which are joined when the text is first used. 64 MB take 40 ms to join."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Sequence[str] = ()) -> None:
        """Own the pieces; the caller does not change the sequence afterwards."""
        self._pieces = pieces

    def __str__(self) -> str:
        """Return the whole text."""
        if len(self._pieces) > 1:
            self._pieces = ("".join(self._pieces),)
        return self._pieces[0] if self._pieces else ""

    def __eq__(self, other: object) -> bool:
        """Compare the whole texts."""
        return str(self) == str(other) if isinstance(other, LazyText) else NotImplemented

    def __hash__(self) -> int:
        """Hash the whole text."""
        return hash(str(self))

    def __repr__(self) -> str:
        """Return the beginning of the text: a result in a traceback or a debugger stays readable."""
        whole = str(self)
        if len(whole) <= _REPR_CHARS:
            return repr(whole)
        return f"{whole[:_REPR_CHARS]!r}… ({len(whole):,} characters)"


EMPTY_TEXT: Final = LazyText()
"""The text of a stream that nothing was written to."""


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of one execution."""

    execution_id: str
    """The execution's id."""
    value: Any = None
    """The value of the code's last statement as plain data: None, bool, int, float, str, bytes, list or dict;
    or what comes back as it was: Decimal, UUID, date, time, datetime, timedelta.

    None when the value has no such form: `value_note` says why, and `repr` shows it."""
    repr: str = ""
    """The value's repr; empty when the code had no value."""
    type_name: str = ""
    """The name of the value's type in the worker."""
    value_note: str = ""
    """Why there is no `value` although the code had one, and where inside of it: it has no plain form, is
    larger than a frame, or there was no memory for it."""
    mode: str = ""
    """How the code was run: `simple_sync`, `async_def`, `blocking_sync`, `top_level_await`, …."""
    duration: float = 0.0
    """Seconds that the code ran."""
    replayed: bool = False
    """Whether this is the recorded outcome of an earlier run, and the code did not run now."""
    attempts: int = 1
    """How many workers have begun to run the code."""
    truncated: bool = False
    """Whether part of the output, the value or the repr is missing."""
    error: ErrorInfo | None = None
    """The exception that the code raised; None if it ended without one."""
    changed: Changes | None = None
    """What the code added to the namespace, changed and deleted: where `WorkerConfig(report=…)` names it."""
    files: FileChanges | None = None
    """The files of the work directory that were created, changed and deleted while the code ran: where
    `WorkerConfig(report=…)` names it."""
    notices: tuple[str, ...] = ()
    """What has happened to the session since the last result: a recovery, and names that were lost in it."""
    data: dict[str, str] = {}
    """The rich forms of the value of an expression, by MIME type, as a notebook shows it: text, JSON as text,
    what is binary in base64, always with `text/plain`.

    Empty when its type has none but its repr, and when the value shows itself: then `displays` has it."""
    metadata: dict[str, str] = {}
    """Data about those, by MIME type, as JSON; `{"error": …}` about one that could not be made."""
    displays: tuple[Display, ...] = ()
    """What the code displayed, in order, updates included; without what it has cleared away."""
    stdout_text: LazyText = EMPTY_TEXT
    """`stdout`, joined when it is used."""
    stderr_text: LazyText = EMPTY_TEXT
    """`stderr`, joined when it is used."""

    @property
    def stdout(self) -> str:
        """What the code wrote to standard output, with `print` or past Python."""
        return str(self.stdout_text)

    @property
    def stderr(self) -> str:
        """What the code wrote to standard error."""
        return str(self.stderr_text)


def make_result(
    outcome: Result | Error,
    stdout: LazyText,
    stderr: LazyText,
    displays: tuple[Display, ...],
    *,
    output_truncated: bool,
    replayed: bool = False,
    attempts: int = 1,
    notices: tuple[str, ...] = (),
) -> ExecutionResult:
    """Return the result of an execution, from its last message and the output before it.

    Args:
        outcome: the execution's `result` or `error` message.
        stdout: its standard output.
        stderr: its standard error.
        displays: the rich objects that it displayed.
        output_truncated: whether part of the output is missing.
        replayed: whether the outcome was recorded by an earlier run.
        attempts: how many workers have begun to run the code.
        notices: what has happened to the session since the last result.
    """
    if not isinstance(outcome, Result):
        return ExecutionResult(
            execution_id=outcome.execution_id or "",
            mode=outcome.mode,
            duration=outcome.duration,
            truncated=outcome.truncated or output_truncated,
            error=make_error(outcome),
            changed=outcome.changed,
            files=outcome.files,
            replayed=replayed,
            attempts=attempts,
            notices=notices,
            displays=displays,
            stdout_text=stdout,
            stderr_text=stderr,
        )
    value: Any = None
    truncated, note = outcome.truncated or output_truncated, outcome.value_note
    if isinstance(outcome.value, msgspec.Raw):
        try:
            value = decode_value(outcome.value)
        except RemoteProtocolError as error:
            truncated, note = True, error.reason
    data = outcome.data
    if data and PLAIN_TEXT not in data:
        data = {**data, PLAIN_TEXT: outcome.repr}
    # A call of more than 15 keywords makes a dictionary of them first: the rare ones come in afterwards.
    result = ExecutionResult(
        execution_id=outcome.execution_id,
        value=value,
        repr=outcome.repr,
        type_name=outcome.type_name,
        value_note=note,
        mode=outcome.mode,
        duration=outcome.duration,
        truncated=truncated,
        attempts=attempts,
        data=data,
        metadata=outcome.metadata,
        displays=displays,
        stdout_text=stdout,
        stderr_text=stderr,
    )
    if replayed or notices:
        result = msgspec.structs.replace(result, replayed=replayed, notices=notices)
    if outcome.changed is not None or outcome.files is not None:
        result = msgspec.structs.replace(result, changed=outcome.changed, files=outcome.files)
    return result


def make_failed_result(
    execution_id: str,
    error: ErrorInfo,
    stdout: LazyText,
    stderr: LazyText,
    displays: tuple[Display, ...],
    *,
    output_truncated: bool,
    replayed: bool,
    attempts: int,
    notices: tuple[str, ...],
) -> ExecutionResult:
    """Return the result of an execution that has no last message. See `make_result` for the arguments."""
    return ExecutionResult(
        execution_id=execution_id,
        truncated=output_truncated,
        error=error,
        replayed=replayed,
        attempts=attempts,
        notices=notices,
        displays=displays,
        stdout_text=stdout,
        stderr_text=stderr,
    )


def make_error(error: Error) -> ErrorInfo:
    """Return the exception of an `error` message.

    Args:
        error: the message that ended an execution.
    """
    return ErrorInfo(
        kind=error.kind,
        type=error.exception,
        message=error.message,
        notes=tuple(error.notes),
        frames=tuple(error.frames),
        traceback=error.traceback,
        cause=None if error.cause is None else _make_chained(error.cause),
        members=tuple(_make_chained(member) for member in error.members),
        suggestion=error.suggestion,
    )


def _make_chained(data: ExceptionData) -> ErrorInfo:
    return ErrorInfo(
        kind="exception",
        type=data.exception,
        message=data.message,
        notes=tuple(data.notes),
        frames=tuple(data.frames),
        cause=None if data.cause is None else _make_chained(data.cause),
        members=tuple(_make_chained(member) for member in data.members),
    )
