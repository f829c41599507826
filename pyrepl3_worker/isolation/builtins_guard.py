"""Puts builtins and trace hooks right as soon as the user's code has returned.

That is before anything else of the worker runs, which may need what the code has deleted or replaced.
"""

import builtins
import sys
from _signal import SIG_UNBLOCK, pthread_sigmask  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - the public module turns numbers into enums
from typing import Any, Final

from pyrepl3_schemas.constants import WAKEUP_SIGNAL

_live: Final = builtins.__dict__
_saved: Final[dict[str, Any]] = dict(builtins.__dict__)
_builtins_module: Final = builtins
_wakeup_signals: Final = (WAKEUP_SIGNAL,)
_user_hooks: list[Any] = [None, None]
"""Trace and profile functions that the code has set; they are for its own frames, not for the worker's."""


def snapshot() -> None:
    """Remember the builtins as they are now, patched functions included."""
    _saved.clear()
    _saved.update(_live)


def provide(name: str, value: object) -> None:
    """Put a value into the builtins from now on; None takes the name out."""
    if value is None:
        _saved.pop(name, None)
        _live.pop(name, None)
    else:
        _saved[name] = _live[name] = value


def install_user_hooks() -> None:
    """Install the code's own hooks, just before it runs."""
    trace, profile = _user_hooks
    if trace is not None:
        sys.settrace(trace)
    if profile is not None:
        sys.setprofile(profile)


def remove_user_hooks(
    live: dict[str, Any] = _live,
    saved: dict[str, Any] = _saved,
    hooks: list[Any] = _user_hooks,
    gettrace: Any = sys.gettrace,
    settrace: Any = sys.settrace,
    getprofile: Any = sys.getprofile,
    setprofile: Any = sys.setprofile,
) -> None:
    """Put back deleted builtins and remove the code's hooks. Uses nothing that the code can delete."""
    hooks[0] = gettrace()
    if hooks[0] is not None:
        settrace(None)
    hooks[1] = getprofile()
    if hooks[1] is not None:
        setprofile(None)
    if live.__len__() < saved.__len__():
        for name, value in saved.items():
            live.setdefault(name, value)


def discard_user_hooks() -> None:
    """Do the same after code of objects (a `__reduce__`), which runs without hooks: drop those it has set."""
    remove_user_hooks(hooks=[None, None])


class PristineBuiltins:
    """A context in which the builtins are as they were, which imports and much of the library need.

    What the code has put in their place is back afterwards.
    """

    __slots__ = ("_replaced",)

    def __enter__(self) -> None:
        """Put the remembered builtins back."""
        self._replaced = {
            name: _live[name] for name in _saved if name in _live and _live[name] is not _saved[name]
        }
        _live.update(_saved)

    def __exit__(self, *_: object) -> None:
        """Put the code's replacements back."""
        _live.update(self._replaced)


def repair_namespace(namespace: dict[str, Any]) -> None:
    """Put back a namespace's `__builtins__`, without which no cell runs."""
    if namespace.get("__builtins__") is not _builtins_module:
        namespace["__builtins__"] = _builtins_module


def unblock_wakeup_signal() -> None:
    """Unblock the wake-up signal, if the code has blocked it."""
    pthread_sigmask(SIG_UNBLOCK, _wakeup_signals)
