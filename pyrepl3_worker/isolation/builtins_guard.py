"""The ground the worker stands on: builtins and hooks, put right as soon as the code has let go.

Before anything else of ours runs, for what the code deleted or set may be what we would need.
"""

import builtins
import sys
from _signal import SIG_UNBLOCK, pthread_sigmask  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - as in `cancellation`
from typing import Any, Final

from pyrepl3_schemas.constants import WAKEUP_SIGNAL

_now: Final = builtins.__dict__
_then: Final[dict[str, Any]] = dict(builtins.__dict__)
_module: Final = builtins
_wakeup: Final = (WAKEUP_SIGNAL,)
_hooks: list[Any] = [None, None]
"""Trace and profile functions that the code has set; they are for its own frames, not for ours."""


def snapshot() -> None:
    """Remember the builtins as they are now, stand-ins included."""
    _then.clear()
    _then.update(_now)


def install_user_hooks() -> None:
    """Give the code its hooks back, just before it runs."""
    trace, profile = _hooks
    if trace is not None:
        sys.settrace(trace)
    if profile is not None:
        sys.setprofile(profile)


def remove_user_hooks(
    now: dict[str, Any] = _now,
    then: dict[str, Any] = _then,
    hooks: list[Any] = _hooks,
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
    if now.__len__() < then.__len__():
        for name, value in then.items():
            now.setdefault(name, value)


def remove_user_hooks_in_passing() -> None:
    """Do the same after code that is no cell's, and ran without the cells' hooks: those it has set go."""
    remove_user_hooks(hooks=[None, None])


class PristineBuiltins:
    """A time in which the builtins are as they were: importing, and much of the library, need them.

    What the code has put in their place is back afterwards.
    """

    __slots__ = ("_theirs",)

    def __enter__(self) -> None:
        """Put ours back."""
        self._theirs = {name: _now[name] for name in _then if name in _now and _now[name] is not _then[name]}
        _now.update(_then)

    def __exit__(self, *_: object) -> None:
        """Put theirs back."""
        _now.update(self._theirs)


def repair_namespace(namespace: dict[str, Any]) -> None:
    """Put back a namespace's `__builtins__`, without which no cell runs."""
    if namespace.get("__builtins__") is not _module:
        namespace["__builtins__"] = _module


def unblock_wakeup_signal() -> None:
    """Unblock the wake-up signal, if the code has blocked it."""
    pthread_sigmask(SIG_UNBLOCK, _wakeup)
