"""Errors that the executor raises itself. What the user's code raises passes through unchanged."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, cast


class ExecutionError(Exception):
    """Base of the executor's own errors."""


class CompilationError(ExecutionError, SyntaxError):
    """A cell does not compile. `__cause__` is the compiler's own error.

    Attributes:
        suggestion: the whole cell, corrected so that it compiles, or None.
    """

    suggestion: str | None = None


class AsyncContextError(ExecutionError, RuntimeError):
    """An event loop, or an execution, was needed where there is none."""


class NamespaceError(ExecutionError):
    """A name to bind is no string."""


class CancellationError(ExecutionError):
    """An execution was cancelled before it began to run."""


class LimitExceeded(ExecutionError, RuntimeError):  # noqa: N818 - says more than LimitError
    """The code went over one of the session's limits. The message names the limit and how to raise it."""


# --- what an exception holds, asked without any code of its class, which may raise or never return ---------

_descriptors: Final[Any] = vars(BaseException)
traceback_of: Final[Callable[[BaseException], TracebackType | None]] = _descriptors["__traceback__"].__get__
cause_of: Final[Callable[[BaseException], BaseException | None]] = _descriptors["__cause__"].__get__
set_context: Final[Callable[[BaseException, BaseException | None], None]] = _descriptors[
    "__context__"
].__set__
_dict_of: Final[Callable[[BaseException], dict[str, Any]]] = _descriptors["__dict__"].__get__


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, unless the code has put something that is no list in the notes' place."""
    notes = _dict_of(error).setdefault("__notes__", [])
    if type(notes) is list:
        cast("list[str]", notes).append(note)
