"""The ground the worker stands on: builtins and hooks, put right as soon as the code has let go.

Before anything else of ours runs, for what the code deleted or set may be what we would need.
"""

import builtins
import sys
from _signal import SIG_UNBLOCK, pthread_sigmask  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - as in `cancellation`
from typing import Any, Final

from pyrepl3_schemas.constants import WAKEUP_SIGNAL

_live: Final = builtins.__dict__
_saved: Final[dict[str, Any]] = dict(builtins.__dict__)
_builtins_module: Final = builtins
_wakeup_signals: Final = (WAKEUP_SIGNAL,)
_user_hooks: list[Any] = [None, None]
"""Trace and profile functions that the code has set; they are for its own frames, not for ours."""


def snapshot() -> None:
    """Remember the builtins as they are now, stand-ins included."""
    _saved.clear()
    _saved.update(_live)


def install_user_hooks() -> None:
    """Give the code its hooks back, just before it runs."""
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
    """Put back deleted builtins, and take the code's hooks off. Uses nothing that could be gone."""
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
    """Do the same after code that is no cell's, and ran without the cells' hooks: those it has set go."""
    remove_user_hooks(hooks=[None, None])


class PristineBuiltins:
    """A time in which the builtins are as they were: importing, and much of the library, need them.

    What the code has put in their place is back afterwards.
    """

    __slots__ = ("_replaced",)

    def __enter__(self) -> None:
        """Put ours back."""
        self._replaced = {
            name: _live[name] for name in _saved if name in _live and _live[name] is not _saved[name]
        }
        _live.update(_saved)

    def __exit__(self, *_: object) -> None:
        """Put theirs back."""
        _live.update(self._replaced)


def repair_namespace(namespace: dict[str, Any]) -> None:
    """Put back a namespace's `__builtins__`, without which no cell runs."""
    if namespace.get("__builtins__") is not _builtins_module:
        namespace["__builtins__"] = _builtins_module


def unblock_wakeup_signal() -> None:
    """Unblock the wake-up signal, if the code has blocked it."""
    pthread_sigmask(SIG_UNBLOCK, _wakeup_signals)
