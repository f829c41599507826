"""The result of an execution and the error that its code raised, as the caller gets them."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pyrepl3_schemas.codec import decode_value
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import Display, Error, ErrorKind, ExceptionData, Frame, Result

_REPR_CHARS: Final = 200
"""How much of a long text its repr shows."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An exception that the user's code raised, as data. `str()` of it is the traceback's text."""

    kind: ErrorKind
    """`exception`, `compilation`, `timeout`, `cancelled`, `limit` or `protocol`."""
    type: str
    """The exception's type name."""
    message: str
    """The exception's text."""
    notes: tuple[str, ...] = ()
    """The exception's notes (`add_note`)."""
    frames: tuple[Frame, ...] = ()
    """The traceback's frames in the user's own code, outermost first."""
    traceback: str = ""
    """The traceback as text, with its cause and group members; empty for a cause or a member."""
    cause: "ErrorInfo | None" = None
    """The exception that caused this one, if any."""
    members: tuple["ErrorInfo", ...] = ()
    """The exceptions of an exception group."""
    suggestion: str | None = None
    """For code that does not compile: a corrected version that does, if one was found."""

    def __str__(self) -> str:
        """Return the traceback, or the exception's own line where there is none."""
        if self.traceback:
            return self.traceback
        return f"{self.type}: {self.message}" if self.message else self.type


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


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one execution."""

    execution_id: str
    """The execution's id."""
    value: Any = None
    """The value of the code's last statement as plain data: None, bool, int, float, str, bytes, list or dict.

    None when the value has no such form (see `repr`)."""
    repr: str = ""
    """The value's repr; empty when the code had no value."""
    type_name: str = ""
    """The name of the value's type in the worker."""
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
    notices: tuple[str, ...] = ()
    """What has happened to the session since the last result: a recovery, and names that were lost in it."""
    displays: tuple[Display, ...] = ()
    """Rich objects that the code displayed, in order."""
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
    if isinstance(outcome, Error):
        return ExecutionResult(
            execution_id=outcome.execution_id or "",
            mode=outcome.mode,
            duration=outcome.duration,
            truncated=outcome.truncated or output_truncated,
            error=make_error(outcome),
            replayed=replayed,
            attempts=attempts,
            notices=notices,
            displays=displays,
            stdout_text=stdout,
            stderr_text=stderr,
        )
    value: Any = None
    truncated = outcome.truncated or output_truncated
    if isinstance(outcome.value, msgspec.Raw):
        try:
            value = decode_value(outcome.value)
        except RemoteProtocolError:
            # It holds an extension type, or is nested too deeply to decode. The repr tells what it was.
            truncated = True
    return ExecutionResult(
        execution_id=outcome.execution_id,
        value=value,
        repr=outcome.repr,
        type_name=outcome.type_name,
        mode=outcome.mode,
        duration=outcome.duration,
        truncated=truncated,
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
