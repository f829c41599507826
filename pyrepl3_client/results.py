"""What an execution came to, as the caller sees it."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pyrepl3_schemas.codec import decode_value
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import Display, Error, ErrorKind, ExceptionData, Frame, Result


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An exception that the user's code raised, as data. `str()` of it is the traceback."""

    kind: ErrorKind
    """`exception`, `compilation`, `timeout`, `cancelled`, `limit` or `protocol`."""
    type: str
    """The exception's type name."""
    message: str
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    """The traceback's lines, outermost first, the user's own frames only."""
    traceback: str = ""
    """The traceback as text, cause and group members included; empty for a cause or a member."""
    cause: "ErrorInfo | None" = None
    members: tuple["ErrorInfo", ...] = ()
    """Of an exception group: the exceptions in it."""
    suggestion: str | None = None
    """Of code that does not compile: code that does."""

    def __str__(self) -> str:
        """Give the traceback, or the exception's own line where there is none."""
        if self.traceback:
            return self.traceback
        return f"{self.type}: {self.message}" if self.message else self.type


class LazyText:
    """Text that came in pieces; joined when somebody wants the whole. 64 MB take 40 ms to join."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Sequence[str] = ()) -> None:
        """Take the pieces; the list becomes ours."""
        self._pieces = pieces

    def __str__(self) -> str:
        """Give the whole."""
        if len(self._pieces) > 1:
            self._pieces = ("".join(self._pieces),)
        return self._pieces[0] if self._pieces else ""

    def __eq__(self, other: object) -> bool:
        """Compare the whole."""
        return str(self) == str(other) if isinstance(other, LazyText) else NotImplemented

    def __hash__(self) -> int:
        """Hash the whole."""
        return hash(str(self))

    def __repr__(self) -> str:
        """Show the beginning: a result in a traceback or a debugger stays readable."""
        whole = str(self)
        return (
            repr(whole)
            if len(whole) <= _REPR_CHARS
            else f"{whole[:_REPR_CHARS]!r}… ({len(whole):,} characters)"
        )


_REPR_CHARS: Final = 200
EMPTY_TEXT: Final = LazyText()


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one execution."""

    execution_id: str
    value: Any = None
    """The value of the code's last statement as plain data: None, bool, int, float, str, bytes, list
    or dict; None when it has no such form (see `repr`)."""
    repr: str = ""
    """The value's repr; empty when the code had no value."""
    type_name: str = ""
    """The value's type in the worker."""
    mode: str = ""
    """How the code was run: `simple_sync`, `async_def`, `blocking_sync`, `top_level_await`, …."""
    duration: float = 0.0
    """Seconds that the code ran."""
    replayed: bool = False
    """Whether this is a recorded outcome, and nothing ran."""
    attempts: int = 1
    """How many workers took the code up."""
    truncated: bool = False
    """Whether output, value or repr is not whole."""
    error: ErrorInfo | None = None
    """What the code raised."""
    notices: tuple[str, ...] = ()
    """What has happened to the session since the last result: a recovery, and names that it lost."""
    displays: tuple[Display, ...] = ()
    """Rich objects that the code showed, in order."""
    stdout_text: LazyText = EMPTY_TEXT
    stderr_text: LazyText = EMPTY_TEXT

    @property
    def stdout(self) -> str:
        """What the code wrote to its standard output, by `print` or past Python."""
        return str(self.stdout_text)

    @property
    def stderr(self) -> str:
        """What the code wrote to its standard error."""
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
    """Put a terminal message and what came before it together. `cut` says that output is missing."""
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
            # Data of an extension type, or deeper than we follow. The repr is there.
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
    """Give an error message as what the caller gets."""
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
