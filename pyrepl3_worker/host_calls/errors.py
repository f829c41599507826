"""Exceptions of host functions, as the code gets them: by type where that is known here, else by name."""

import builtins
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from pyrepl3_schemas.messages import CallError
from pyrepl3_worker.errors import ExecutionError

_types: Final[dict[str, type["HostFunctionError"]]] = {}
_STDLIB: Final = sys.stdlib_module_names


class HostFunctionError(ExecutionError, RuntimeError):
    """A host function raised an exception whose type does not exist here; a subclass has its name."""


def make_exception(error: CallError) -> BaseException:
    """Return the exception that a host function has raised, with its notes, its cause and its members."""
    raised: BaseException = _make_group(error) if error.members else _make(_known_type(error), error)
    for note in error.notes:
        raised.add_note(note)
    if error.cause is not None:
        raised.__cause__ = make_exception(error.cause)
    return raised


def _known_type(error: CallError) -> type[Exception] | None:
    """Return the exception's type: a built-in one, or one of a module that is imported here.

    A module of the host's is never imported for this: that would run it here. Nor is `__main__` looked at,
    which is another one there. The library's modules are imported.
    """
    found: Any = getattr(builtins, error.exception, None)
    if error.module not in ("", "builtins", "__main__"):
        module = sys.modules.get(error.module)
        if module is None and error.module.partition(".")[0] in _STDLIB:
            try:
                module = import_module(error.module)
            except Exception:
                module = None
        found = None if module is None else vars(module).get(error.exception)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _make(known: type[Exception] | None, error: CallError) -> BaseException:
    if known is None or issubclass(known, BaseExceptionGroup):
        made = _types.get(error.exception)
        if made is None:
            made = _types[error.exception] = type(
                error.exception, (HostFunctionError,), {"__module__": "__main__"}
            )
        return made(error.message)
    raised = _made(known, error.message)
    if raised is not None and _says(raised, error.message):
        return raised
    # An instance that shows the text, and is of the type all the same: UnicodeDecodeError and its like.
    shown = type(
        known.__name__,
        (known,),
        {"__module__": known.__module__, "__init__": _no_init, "__str__": _text_shower(error.message)},
    )
    return shown.__new__(shown, error.message)


def _text_shower(text: str) -> Callable[[object], str]:
    def show(_: object) -> str:
        return text

    return show


def _made(make: Any, *args: object) -> Exception | None:
    """Return an exception, or None where its type wants anything else."""
    try:
        return make(*args)
    except Exception:
        return None


def _says(raised: Exception, message: str) -> bool:
    try:
        return str(raised) == message or (type(raised) is KeyError and raised.args == (message,))
    except Exception:
        return False


def _no_init(self: BaseException, *_: object) -> None:
    """Leave the attributes of the type out: what they were is not known."""


def _make_group(error: CallError) -> Any:
    members = [make_exception(member) for member in error.members]
    known = _known_type(error)
    make: Any = BaseExceptionGroup
    own = _made(known, error.message, members) if known is not None and issubclass(known, make) else None
    return make(error.message, members) if own is None else own
