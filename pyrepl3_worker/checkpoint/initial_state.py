"""The state that the worker's process had when its session began: what a checkpoint need not hold.

Read at every start, so it holds only what costs microseconds. A restore goes back to it in everything that
the code had not changed when the checkpoint was taken.
"""

import gc
import os
import sys
import time
import warnings
from _locale import LC_COLLATE, LC_CTYPE, LC_MESSAGES, LC_MONETARY, LC_NUMERIC, LC_TIME, setlocale
from _signal import NSIG, getsignal  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - the public module turns numbers into enums
from _thread import stack_size
from resource import RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_STACK, getrlimit
from typing import Any, Final, cast

LOCALE_CATEGORIES: Final = (LC_CTYPE, LC_COLLATE, LC_MESSAGES, LC_MONETARY, LC_NUMERIC, LC_TIME)
SIGNALS: Final = range(1, cast(int, NSIG))
HOOKS: Final = (
    "sys.excepthook", "sys.displayhook", "sys.breakpointhook", "sys.unraisablehook", "threading.excepthook",
)  # fmt: skip
_LIMITS: Final = (RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_STACK)
"""Those that a process sets for itself; the worker sets others."""
_TIGHT_UMASK: Final = 0o077
_umask: Final = os.umask


def read_umask() -> int:
    """Return the umask, which can only be read by setting it; meanwhile threads' files are private ones."""
    found = _umask(_TIGHT_UMASK)
    _umask(found)
    return found


def read_stack_size() -> int:
    """Return the size of new threads' stacks, which can only be read by setting it."""
    found = stack_size()
    stack_size(found)
    return found


def read_hook(place: str) -> Any:
    """Return the hook that stands in one of the `HOOKS` now; None where the code has deleted it."""
    module, _, name = place.partition(".")
    return getattr(sys.modules[module], name, None)


def read_soft_limits() -> dict[int, int]:
    """Return the soft limits of this process, by kind."""
    return {kind: getrlimit(kind)[0] for kind in _LIMITS}


class InitialState:
    """The process's state as it was when this object was made."""

    __slots__ = (
        "cwd",
        "environ",
        "gc",
        "hooks",
        "int_max_str_digits",
        "locale",
        "path",
        "recursion_limit",
        "signals",
        "soft_limits",
        "stack_size",
        "switch_interval",
        "timezone",
        "umask",
        "warning_filters",
    )

    def __init__(self) -> None:
        """Read it."""
        try:
            self.cwd: str | None = os.getcwd()
        except OSError:
            self.cwd = None  # the folder is gone
        self.environ: dict[bytes, bytes] = dict(os.environb)
        self.path = [entry for entry in sys.path if type(entry) is str]
        self.umask = read_umask()
        self.locale = {category: setlocale(category, None) for category in LOCALE_CATEGORIES}
        self.timezone = (time.tzname, time.timezone)
        self.recursion_limit = sys.getrecursionlimit()
        self.gc = gc.isenabled(), gc.get_threshold()
        self.hooks: dict[str, Any] = {place: read_hook(place) for place in HOOKS}
        self.int_max_str_digits = sys.get_int_max_str_digits()
        self.signals: dict[int, Any] = {number: getsignal(number) for number in SIGNALS}
        self.soft_limits = read_soft_limits()
        self.stack_size = read_stack_size()
        self.switch_interval = sys.getswitchinterval()
        self.warning_filters = list(warnings.filters)
