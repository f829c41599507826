"""What the code is told of an exception that a host function has raised, and what the host's log says."""

from pathlib import Path
from types import TracebackType
from typing import Final, cast

from pyrepl3_client._concurrency.carried_error import CarriedError
from pyrepl3_client._execution.answering import encodable, text_of
from pyrepl3_client._telemetry.announcer import CallWatch
from pyrepl3_client.config import ErrorDetail
from pyrepl3_client.errors import CapabilityError, ProtocolError
from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError, ValueTooLarge
from pyrepl3_schemas.messages import Call, CallError

_PACKAGE_FOLDER: Final = f"{Path(__file__).parents[1]}/"
_MAX_DEPTH: Final = 20
_MAX_MEMBERS: Final = 50
_MAX_NOTES: Final = 50


class RefusedError(CapabilityError):
    """A call that is not made: over its budget, not offered any more. Logged without a traceback."""


class NotApprovedError(PermissionError):
    """A call that is not made: it was not approved."""


def call_error(call: Call, error: BaseException, detail: ErrorDetail, watch: CallWatch) -> CallError:
    """Announce what a host function has raised, and return what the code is told of it.

    Args:
        call: the call.
        error: what it has ended with.
        detail: how much the code is told.
        watch: announces it.
    """
    name = call.capability
    if isinstance(error, RefusedError):
        watch.ended("refused", "CapabilityError", str(error))
        return CallError("CapabilityError", encodable(str(error)))
    if isinstance(error, NotApprovedError):
        watch.ended("refused", "PermissionError", str(error))
        return CallError("PermissionError", encodable(str(error)))
    kind = type(error)
    watch.ended("error", kind.__name__, text_of(error), (kind, error, _own_traceback(error)))
    if detail == "masked":
        return CallError(type(error).__name__, f"call {encodable(call.call_id)!r} failed on the host")
    if isinstance(error, LocalProtocolError | RemoteProtocolError | ProtocolError):
        # A host function's own call of encode_value can fail like this too, and is told the same.
        room = f" (max_frame_bytes={DEFAULT_MAX_FRAME_BYTES:,})" if isinstance(error, ValueTooLarge) else ""
        return CallError("CapabilityError", encodable(f"capability {name!r}: {error}{room}"))
    return _described(error, set(), _MAX_DEPTH)


def _own_traceback(error: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins in the host function."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_PACKAGE_FOLDER):
        step = step.tb_next
    return step


def _described(error: BaseException, seen: set[int], depth: int) -> CallError:
    seen.add(id(error))
    raised = error
    cause: BaseException | None = error.__cause__
    if isinstance(error, CarriedError) and cause is not None:
        raised, cause = cause, cause.__cause__
    known = isinstance(cause, BaseException) and id(cause) not in seen and depth > 0
    members: list[BaseException] = []
    text = text_of(error)
    if isinstance(raised, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", raised)
        members = [member for member in group.exceptions if id(member) not in seen][:_MAX_MEMBERS]
        text = text_of(Exception(group.message))
    kind, notes = type(error), _notes(cast(BaseException, raised))
    return CallError(
        kind.__name__,
        encodable(text),
        [encodable(note) for note in notes],
        _described(cause, seen, depth - 1) if known and cause is not None else None,
        [_described(member, seen, depth - 1) for member in members] if depth > 0 else [],
        "" if kind.__module__ == "builtins" else encodable(str(kind.__module__)),
    )


def _notes(error: BaseException) -> list[str]:
    notes: object = getattr(error, "__notes__", None)
    if not isinstance(notes, list):
        return []
    found = cast("list[object]", notes)
    return [note for note in found[:_MAX_NOTES] if isinstance(note, str)]
