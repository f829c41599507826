"""ResultEncoder: outcomes as wire messages.

`encode_value` and `encode_error` run where the code runs, so that a `__repr__` that hangs can be cancelled.
"""

import sys
from asyncio import CancelledError  # by name: the code may replace asyncio's own
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from pyrepl3_schemas.codec import encode_value
from pyrepl3_schemas.errors import LocalProtocolError, ValueTooLarge
from pyrepl3_schemas.messages import Error, ErrorKind, Result, Value
from pyrepl3_schemas.object_limit import max_objects
from pyrepl3_worker.code.suggestions import ErrorRecovery
from pyrepl3_worker.config import ExecutorConfig
from pyrepl3_worker.confinement.in_force import exceeded_limit
from pyrepl3_worker.errors import CancellationError, CompilationError, LimitExceeded, add_note
from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.execution.host import NO_VALUE, CellOutcome
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.rendering.exceptions import (
    bounded_text,
    describe_exception,
    describe_without_user_code,
    exception_message,
    shorten_error,
)
from pyrepl3_worker.rendering.reprs import bounded_repr, type_name

_RESERVE_BYTES: Final = 8 * 1024 * 1024
_ENVELOPE_BYTES: Final = 256
_ENVELOPE_OBJECTS: Final = 256
"""Room in a frame for the fields of a `result` other than its value and texts."""
_MAX_NOTE_CHARS: Final = 500
_HOW_TO_GET_IT: Final = "; session.get gives a variable of any size"


_NO_RICH_FORM: Final = frozenset(
    {str, bytes, bytearray, list, tuple, dict, set, frozenset, range, complex, int, float, bool, type}
)
"""Exact types that are not asked for a rich form."""
_NUMBER_NAMES: Final[dict[type, str]] = {int: "int", float: "float", bool: "bool"}
_INT64_BOUND: Final = 2**63


_NO_BUNDLE: Final[dict[str, str]] = {}
type BundleMaker = Callable[[WorkerExecution, object, str, int], tuple[dict[str, str], dict[str, str]]]
"""Takes an execution, its value, its repr, and the bytes that are left; returns `data` and `metadata`."""


class EncodedValue(msgspec.Struct, frozen=True):
    """A value in the form that a `result` carries."""

    value: Value
    repr: str
    type_name: str
    truncated: bool
    value_note: str = ""
    data: dict[str, str] = _NO_BUNDLE
    metadata: dict[str, str] = _NO_BUNDLE


_ENCODED_NONE: Final = EncodedValue(encode_value(None), "None", "NoneType", False)
_ENCODED_NO_VALUE: Final = EncodedValue(msgspec.UNSET, "", "", False)


class ResultEncoder:
    """Makes the `result` or `error` message of an execution."""

    def __init__(self, config: ExecutorConfig, bundle_of: BundleMaker | None = None) -> None:
        """Keep to the config's bounds, and reserve memory under a memory limit.

        Args:
            config: the bounds.
            bundle_of: makes the rich forms of a value, if results are to hold them.
        """
        self._config = config
        self._bundle_of = bundle_of
        # Each character may take four bytes: so they are half of a frame at most, and the name a tenth.
        self._max_repr_chars = min(config.max_repr_chars, config.max_frame_bytes // 8)
        self._max_name_chars = config.max_frame_bytes // 40
        self.text_of: Callable[[object], str | None] | None = None
        """Returns the text by which a value is shown, or None for its repr. None: all are shown by that."""
        self._memory_reserve: bytearray | None = None
        self._refill_reserve()

    def _refill_reserve(self) -> None:
        """Reserve, under a memory limit, the memory that it takes to describe that the limit was hit.

        The pages are never touched, so they count towards the limit and use no memory.
        """
        if self._config.max_memory_usage is not None and self._memory_reserve is None:
            with suppress(MemoryError):
                self._memory_reserve = bytearray(_RESERVE_BYTES)

    @runs_user_code
    def encode_value(self, execution: WorkerExecution, value: Any) -> "EncodedValue":
        """Encode a value: as MessagePack where it has that form, and always as a repr."""
        if value is None:
            return _ENCODED_NONE
        if value is NO_VALUE:
            return _ENCODED_NO_VALUE
        kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType] - of anything
        try:
            name, is_builtin = _NUMBER_NAMES.get(kind), kind in _NO_RICH_FORM
        except Exception:  # a metaclass of the code's own forbids a hash
            name, is_builtin = None, False
        if name is not None and self.text_of is None and -_INT64_BOUND < value < _INT64_BOUND:
            # The same text as `bounded_repr`'s: even the smallest bound has room for it.
            # With the bundles, since each default would be a new dictionary.
            return EncodedValue(encode_value(value), repr(value), name, False, "", _NO_BUNDLE, _NO_BUNDLE)
        text, truncated = self._shown(value)
        name = bounded_text(type_name(value), self._max_name_chars)
        frame = self._config.max_frame_bytes
        room = (
            frame - _ENVELOPE_BYTES - _utf8_size(text) - _utf8_size(name) - _utf8_size(execution.execution_id)
        )
        raw: Value = msgspec.UNSET
        note = ""
        try:
            raw = encode_value(value, room, max_objects(frame) - _ENVELOPE_OBJECTS)
        except LocalProtocolError as error:
            from pyrepl3_schemas.plain_types import NO_SHORT_FORM, TOO_LARGE

            truncated = truncated or isinstance(error, ValueTooLarge)
            note = bounded_text(error.reason, _MAX_NOTE_CHARS)
            if error.reason.endswith((TOO_LARGE, NO_SHORT_FORM)):
                note += _HOW_TO_GET_IT
        except MemoryError:
            return EncodedValue(msgspec.UNSET, text, name, True, self._no_memory_note())
        # IPython's shell knows what the code has registered for builtin types, too.
        plain = is_builtin and self.text_of is None
        if self._bundle_of is None or plain or execution.is_assigned:
            return EncodedValue(raw, text, name, truncated, note)
        if isinstance(raw, msgspec.Raw):
            room -= len(raw)
        data, metadata = self._bundle_of(execution, value, text, room - _utf8_size(note))
        return EncodedValue(raw, text, name, truncated, note, data, metadata)

    @runs_user_code
    def _shown(self, value: object) -> tuple[str, bool]:
        text = None if self.text_of is None else self.text_of(value)
        if text is None:
            return bounded_repr(value, self._max_repr_chars)
        shown = bounded_text(text, self._max_repr_chars)
        return shown, len(text) > self._max_repr_chars

    def _no_memory_note(self) -> str:
        limit = exceeded_limit(MemoryError()) or self._memory_limit_note()
        return f"there is not enough memory to send it: {limit}"

    def _memory_limit_note(self) -> str:
        limit = self._config.max_memory_usage
        if limit is None:
            return "no limit is set, so it is the machine's"
        return f"max_memory_usage={limit} bytes; raise it in the ExecutorConfig if that is too low"

    @runs_user_code
    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Error:
        """Encode an exception as an `error` message."""
        kind = self._kind(execution, error)
        if issubclass(type(error), MemoryError):
            self._memory_reserve = None
        limit_note = exceeded_limit(error) if kind in ("exception", "limit") else ""
        if limit_note:
            kind = "limit"
            add_note(error, limit_note)
        elif kind == "limit" and issubclass(type(error), MemoryError):
            add_note(error, self._memory_limit_note())
        if issubclass(type(error), RuntimeError | TypeError):
            advice = ErrorRecovery.handle_async_context_error(error)
            if advice is not None:
                add_note(error, advice)
        try:
            return describe_exception(error, kind, execution.execution_id)
        except (Exception, RecursionError) as broken:
            return describe_without_user_code(
                error,
                kind,
                execution.execution_id,
                f"describing it raised {type_name(broken)}",
                exception_message(error),
            )

    def _kind(self, execution: WorkerExecution, error: BaseException) -> ErrorKind:
        # By its type alone: isinstance asks the object itself for its __class__, and runs its code.
        kind = type(error)
        reason = execution.cancel_reason
        if issubclass(kind, CompilationError):
            return "compilation"
        if issubclass(kind, LimitExceeded):
            return "limit"
        if issubclass(kind, MemoryError) and self._config.max_memory_usage is not None:
            return "limit"
        stopped = issubclass(kind, CancelledError | KeyboardInterrupt | CancellationError)
        if reason is not None and "bdb" in sys.modules:
            # An interrupt of a debugger that waits for a command.
            stopped = stopped or issubclass(kind, sys.modules["bdb"].BdbQuit)
        if reason == "timeout" and (stopped or issubclass(kind, TimeoutError)):
            return "timeout"
        if stopped and (reason is not None or issubclass(kind, CancellationError)):
            return "cancelled"
        return "exception"

    def make_message(self, execution: WorkerExecution, outcome: CellOutcome) -> Result | Error:
        """Return the one message that ends an execution."""
        if self._memory_reserve is None and self._config.max_memory_usage is not None:
            self._refill_reserve()
        encoded: EncodedValue | Error | None = outcome.encoded
        truncated = execution.output_was_cut
        if isinstance(encoded, EncodedValue):
            return Result(
                execution_id=execution.execution_id,
                mode=execution.mode,
                value=encoded.value,
                repr=encoded.repr,
                type_name=encoded.type_name,
                value_note=encoded.value_note,
                data=encoded.data,
                metadata=encoded.metadata,
                duration=outcome.duration,
                truncated=encoded.truncated or truncated,
                captured=execution.undrained,
            )
        if encoded is None:
            error = outcome.error if outcome.error is not None else RuntimeError("no outcome")
            kind = self._kind(execution, error)
            encoded = describe_without_user_code(
                error, kind, execution.execution_id, "it was stopped while being described"
            )
        return msgspec.structs.replace(
            encoded,
            mode=execution.mode,
            duration=outcome.duration,
            truncated=truncated,
            captured=execution.undrained,
        )

    def make_message_without_value(self, execution: WorkerExecution, outcome: CellOutcome) -> Result | Error:
        """Return the message of an outcome for which there is no memory as a whole."""
        self._memory_reserve = None
        message = self.make_message(execution, outcome)
        if not isinstance(message, Result):
            return message
        note = self._no_memory_note()
        return msgspec.structs.replace(message, value=msgspec.UNSET, value_note=note, truncated=True)

    def make_too_large_error(
        self, execution: WorkerExecution, outcome: CellOutcome, error: LocalProtocolError
    ) -> Error:
        """Return a shortened error for an outcome that does not fit `max_frame_bytes`."""
        message = self.make_message(execution, outcome)
        if isinstance(message, Error):
            fitting = shorten_error(message, self._config.max_frame_bytes)
            if fitting is not None:
                return fitting
        return Error(
            kind="limit",
            exception=type(error).__name__,
            message=f"the outcome does not fit max_frame_bytes={self._config.max_frame_bytes}",
            execution_id=execution.execution_id,
            mode=execution.mode,
            duration=outcome.duration,
            captured=execution.undrained,
        )


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
