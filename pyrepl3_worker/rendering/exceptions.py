"""Exceptions as `error` messages: types, texts, frames, notes, chains and groups.

Only the frames of the user's own code are kept. Nothing here trusts an exception: its `__str__` may raise
or return a huge text, and its stack may be thousands of frames deep.
"""

import linecache
from asyncio import CancelledError  # by name: the code may replace asyncio's own
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from traceback import FrameSummary, StackSummary, TracebackException
from types import TracebackType
from typing import Any, Final, cast

import msgspec

from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.head_tail import shorten_to_characters
from pyrepl3_schemas.messages import Error, ErrorKind, ExceptionData, Frame
from pyrepl3_worker.code import own_frames
from pyrepl3_worker.code.compiler import WRAPPER_NAME
from pyrepl3_worker.code.own_frames import is_cell_file
from pyrepl3_worker.errors import CompilationError
from pyrepl3_worker.rendering.reprs import encodable, type_name

_MESSAGE_CHARS: Final = 64 * 1024
_TRACEBACK_CHARS: Final = 256 * 1024
_NOTE_CHARS: Final = 8 * 1024
_MAX_NOTES: Final = 50
_MAX_FRAMES: Final = (50, 100)
"""How many outermost and innermost frames are kept of a deeper stack."""
_MAX_SHOWN_FRAMES: Final = (500, 600)
"""The same for a traceback's text, in which Python counts lines that repeat: over its recursion limit."""
_MAX_MEMBERS: Final = 50
_MAX_CHAIN: Final = 20
_HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE of CPython's object.h: a class that a `class` statement has made has it."""
_PLAIN_TYPES: Final = (str, bytes, int, float, bool, type(None))
_TYPES_WITH_PARTS: Final = (OSError, SyntaxError, ImportError, UnicodeError)
"""Builtin exceptions whose texts hold attributes beside `args`."""
_PART_NAMES: Final = (
    "errno", "strerror", "filename", "filename2", "msg", "lineno", "encoding", "object", "reason",
)  # fmt: skip
_MIN_CHARS: Final = 64
"""Characters of an error's texts; if not even these fit into a frame, nothing does."""
_CANCEL_EXCEPTIONS: Final[dict[type, str]] = {
    CancelledError: "asyncio.exceptions.CancelledError",
    KeyboardInterrupt: "KeyboardInterrupt",
    TimeoutError: "TimeoutError",
}
"""The exceptions that a cancel or timeout raises, and their names in a traceback."""


def bounded_text(text: str, limit: int) -> str:
    """Return a text that encodes, with at most `limit` characters of its head and tail, and a marker."""
    return encodable(text if len(text) <= limit else shorten_to_characters(text, limit))


def describe_exception(error: BaseException, kind: ErrorKind, execution_id: str | None) -> Error:
    """Return an exception as an `error` message.

    Args:
        error: the exception.
        kind: what kind of failure the message says it is.
        execution_id: the execution that failed; None for a complaint about the session.
    """
    # By its type alone, here and elsewhere: isinstance asks the object itself for its __class__.
    if issubclass(type(error), CompilationError):
        return _describe_compilation(cast("CompilationError", error), execution_id)
    # Nor by its type's hash, which may be a metaclass's.
    if any(type(error) is each for each in _without_traceback):
        return _describe_in_a_line(error, kind, execution_id)
    if (
        kind in ("cancelled", "timeout")
        and any(type(error) is each for each in _CANCEL_EXCEPTIONS)
        and error.__cause__ is None
        and (error.__context__ is None or error.__suppress_context__)
    ):
        return _describe_cancellation(error, kind, execution_id)
    summary = TracebackException.from_exception(error, compact=True, max_group_width=_MAX_MEMBERS)
    _keep_user_frames(summary, 0)
    data = _exception_data(error, summary, 0)
    return Error(
        execution_id=execution_id,
        kind=kind,
        exception=data.exception,
        message=data.message,
        notes=data.notes,
        frames=data.frames,
        traceback=_traceback_text(summary),
        cause=data.cause,
        members=data.members,
    )


_without_traceback: Final[set[type]] = set()


def show_without_traceback(kind: type[BaseException]) -> None:
    """Show exceptions of this exact type as one line: something was typed wrong, no code is at fault."""
    _without_traceback.add(kind)


def _describe_in_a_line(error: BaseException, kind: ErrorKind, execution_id: str | None) -> Error:
    message = exception_message(error)
    return Error(
        execution_id=execution_id,
        kind=kind,
        exception=type_name(error),
        message=message,
        notes=_notes(error),
        traceback=bounded_text(f"{type_name(error)}: {message}\n", _TRACEBACK_CHARS),
    )


def shorten_error(error: Error, max_frame_bytes: int) -> Error | None:
    """Return as much of an error as fits into a frame, or None if even the smallest form does not."""
    chars = min(_MESSAGE_CHARS, max_frame_bytes // 8)
    while chars >= _MIN_CHARS:
        # The error's own text is shortened last, its frames before it, and other errors first.
        few = chars // _MIN_CHARS - 1
        data = _shorten_exception_data(error, chars, few, depth=min(few, _MAX_CHAIN))
        short = msgspec.structs.replace(
            error,
            exception=data.exception,
            message=data.message,
            notes=data.notes,
            frames=data.frames,
            cause=data.cause,
            members=data.members,
            traceback=bounded_text(error.traceback, 2 * chars),
            suggestion=error.suggestion if len(error.suggestion or "") <= chars else None,
            truncated=True,
        )
        with suppress(LocalProtocolError):
            encode(short, max_frame_bytes)
            return short
        chars //= 2
    return None


def _shorten_exception_data(data: Error | ExceptionData, chars: int, few: int, depth: int) -> ExceptionData:
    """Cut texts to `chars`, lists to `few` items, inner errors to a part of that, down to `depth` levels."""
    cause, members = data.cause, data.members
    return ExceptionData(
        exception=bounded_text(data.exception, chars),
        message=bounded_text(data.message, chars),
        notes=[bounded_text(note, chars // 4) for note in data.notes[:few]],
        frames=data.frames[-few:] if few else [],
        cause=None
        if cause is None or not depth
        else _shorten_exception_data(cause, chars // 4, few // 2, depth - 1),
        members=[
            _shorten_exception_data(member, chars // 4, few // 2, depth - 1) for member in members[: few // 4]
        ]
        if depth
        else [],
    )


def _describe_cancellation(error: BaseException, kind: ErrorKind, execution_id: str | None) -> Error:
    """Return the same as `describe_exception` for a cancel or timeout, in a fifth of the time.

    The user waits for just this message. The traceback has no carets, since they would only mark the
    expression at which the exception happened to be raised.
    """
    stack: list[TracebackType] = []
    step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(own_frames.hidden_prefixes):
            stack.append(step)
        step = step.tb_next
    first = (at for at, step in enumerate(stack) if is_cell_file(step.tb_frame.f_code.co_filename))
    stack = stack[next(first, 0) :]
    frames = [_frame_from_traceback(step) for step in _drop_middle(stack, _MAX_FRAMES)]
    message, notes = exception_message(error), _notes(error)
    text = ["Traceback (most recent call last):\n"] if frames else []
    for at, frame in enumerate(frames):
        if at == _MAX_FRAMES[0] and len(frames) < len(stack):
            text.append(_left_out(len(stack) - len(frames)))
        text.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n')
        if frame.line:
            text.append(f"    {frame.line}\n")
    name = _CANCEL_EXCEPTIONS[type(error)]
    text.append(f"{name}: {message}\n" if message else f"{name}\n")
    text.extend(f"{note}\n" for note in notes)
    return Error(
        execution_id=execution_id,
        kind=kind,
        exception=type_name(error),
        message=message,
        notes=notes,
        frames=frames,
        traceback=bounded_text("".join(text), _TRACEBACK_CHARS),
    )


def _frame_from_traceback(step: TracebackType) -> Frame:
    code = step.tb_frame.f_code
    filename = code.co_filename
    if not is_cell_file(filename):
        linecache.checkcache(filename)
    line = linecache.getline(filename, step.tb_lineno, step.tb_frame.f_globals).strip()
    _, end_lineno, colno, end_colno = next(
        islice(code.co_positions(), step.tb_lasti // 2, None), (None, None, None, None)
    )
    return Frame(
        filename=bounded_text(filename, 1000),
        lineno=step.tb_lineno,
        name="<module>" if code.co_name == WRAPPER_NAME else bounded_text(code.co_name, 500),
        line=bounded_text(line, 1000),
        end_lineno=end_lineno,
        colno=colno,
        end_colno=end_colno,
    )


def _drop_middle[T](stack: list[T], kept: tuple[int, int]) -> list[T]:
    head, tail = kept
    return stack[:head] + stack[-tail:] if len(stack) > head + tail else stack


def _left_out(number: int) -> str:
    return f"  [{number:,} frames left out]\n"


class _ShownStack(StackSummary):
    """A stack that says where frames of a very deep one are left out, and shows each line of code once."""

    left_out = 0

    def format(self, **options: Any) -> list[str]:  # 3.13 passes some
        self._shown: dict[tuple[object, ...], str] = {}
        if not self.left_out:
            return super().format(**options)
        head, _ = _MAX_SHOWN_FRAMES
        parts = _ShownStack(self[:head]), _ShownStack(self[head:])
        return [*parts[0].format(**options), _left_out(self.left_out), *parts[1].format(**options)]

    def format_frame_summary(self, frame_summary: FrameSummary, **options: Any) -> str:
        # The marks below a line take most of the time, and a recursion has the same lines again and again.
        key = (
            frame_summary.filename,
            frame_summary.lineno,
            frame_summary.name,
            frame_summary.colno,
            frame_summary.end_colno,
        )
        text = self._shown.get(key)
        if text is None:
            text = self._shown[key] = super().format_frame_summary(frame_summary, **options)
        return text


def describe_without_user_code(
    error: BaseException, kind: ErrorKind, execution_id: str | None, why: str, message: str = ""
) -> Error:
    """Return the shortest description of an exception, without running any of its own code.

    Args:
        error: the exception.
        kind: what kind of failure the message says it is.
        execution_id: the execution that failed; None for a complaint about the session.
        why: why a full description is not possible.
        message: the exception's text, where it is known; that of one of Python's own types always is.
    """
    name = type_name(error)
    known = message or _plain_message(error)
    text = known or f"the exception could not be described ({why})"
    shown = f"{name}: {text}\n"
    if known:
        shown += f"[no traceback: {why}]\n"
    return Error(
        execution_id=execution_id,
        kind=kind,
        exception=bounded_text(name, 200),
        message=text,
        traceback=bounded_text(shown, _TRACEBACK_CHARS),
    )


def _describe_compilation(error: CompilationError, execution_id: str | None) -> Error:
    cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
    shown = TracebackException(type(cause), cause, None, compact=True)
    frames: list[Frame] = []
    if error.lineno is not None and error.filename is not None:
        frames.append(
            Frame(
                filename=error.filename,
                lineno=error.lineno,
                name="<module>",
                line=bounded_text((error.text or "").rstrip("\n"), 1000),
                end_lineno=error.end_lineno,
                colno=None if error.offset is None else max(error.offset - 1, 0),
                end_colno=None if error.end_offset is None else max(error.end_offset - 1, 0),
            )
        )
    return Error(
        execution_id=execution_id,
        kind="compilation",
        exception="SyntaxError" if isinstance(cause, CompilationError) else type(cause).__name__,
        message=bounded_text(str(error.msg), _MESSAGE_CHARS),
        notes=_notes(error),
        frames=frames,
        traceback=bounded_text("".join(shown.format(chain=False)), _TRACEBACK_CHARS),
        suggestion=error.suggestion,
    )


def _keep_user_frames(summary: TracebackException, depth: int) -> None:
    """Remove our own frames from the stacks, and those outside the user's first line."""
    frames = _user_frames(summary.stack)
    stack = _ShownStack(_drop_middle(frames, _MAX_SHOWN_FRAMES))
    stack.left_out = len(frames) - len(stack)
    summary.stack = stack
    if depth > _MAX_CHAIN:
        summary.__cause__ = summary.__context__ = None
        return
    for other in (summary.__cause__, summary.__context__, *(summary.exceptions or ())):
        if other is not None:
            _keep_user_frames(other, depth + 1)


def _user_frames(stack: Iterable[FrameSummary]) -> list[FrameSummary]:
    frames = [frame for frame in stack if not frame.filename.startswith(own_frames.hidden_prefixes)]
    first = next((at for at, frame in enumerate(frames) if is_cell_file(frame.filename)), 0)
    frames = frames[first:]
    for frame in frames:
        if frame.name == WRAPPER_NAME:
            frame.name = "<module>"
    return frames


def _traceback_text(summary: TracebackException) -> str:
    return bounded_text("".join(summary.format()), _TRACEBACK_CHARS)


def _exception_data(error: BaseException, summary: TracebackException, depth: int) -> ExceptionData:
    cause: ExceptionData | None = None
    members: list[ExceptionData] = []
    if depth < _MAX_CHAIN:
        if error.__cause__ is not None and summary.__cause__ is not None:
            cause = _exception_data(error.__cause__, summary.__cause__, depth + 1)
        elif (
            error.__context__ is not None
            and summary.__context__ is not None
            and not error.__suppress_context__
        ):
            cause = _exception_data(error.__context__, summary.__context__, depth + 1)
        if summary.exceptions is not None:
            group: Any = error
            pairs = list(zip(group.exceptions, summary.exceptions, strict=False))[:_MAX_MEMBERS]
            members = [_exception_data(member, shown, depth + 1) for member, shown in pairs]
    return ExceptionData(
        exception=bounded_text(type_name(error), 200),
        message=exception_message(error),
        notes=_notes(error),
        frames=[_frame_from_summary(frame) for frame in _drop_middle(list(summary.stack), _MAX_FRAMES)],
        cause=cause,
        members=members,
    )


def exception_message(error: BaseException) -> str:
    """Return an exception's text, or a text that says that its `__str__` raises."""
    try:
        text = str(error)
    except Exception as broken:
        return f"<{type_name(error)}.__str__ raised {type_name(broken)}>"
    return bounded_text(text, _MESSAGE_CHARS)


def _plain_message(error: BaseException) -> str:
    """Return the text of an exception of Python's own types that holds plain values only; else none.

    No code of the user's can run: neither a `__str__` of a class, nor one of a value inside of the exception.
    """
    kind = type(error)
    if type.__dict__["__flags__"].__get__(kind) & _HEAP_TYPE:
        return ""
    parts: list[object] = [*error.args]
    if issubclass(kind, _TYPES_WITH_PARTS):
        parts += [getattr(error, name, None) for name in _PART_NAMES]
    if not all(any(type(part) is plain for plain in _PLAIN_TYPES) for part in parts):
        return ""
    return exception_message(error)


def _notes(error: BaseException) -> list[str]:
    notes: Any = error.__dict__.get("__notes__")
    if type(notes) is not list:
        return []
    texts = cast("list[object]", notes)[:_MAX_NOTES]
    return [bounded_text(note, _NOTE_CHARS) for note in texts if isinstance(note, str)]


def _frame_from_summary(frame: FrameSummary) -> Frame:
    return Frame(
        filename=bounded_text(frame.filename, 1000),
        lineno=frame.lineno or 0,
        name=bounded_text(frame.name, 500),
        line=bounded_text(frame.line or "", 1000),
        end_lineno=frame.end_lineno,
        colno=frame.colno,
        end_colno=frame.end_colno,
    )
