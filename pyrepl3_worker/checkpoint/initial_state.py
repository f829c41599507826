"""The state that the worker's process had when its session began: what a checkpoint need not hold.

Read at every start, so it holds only what costs microseconds. A restore goes back to it in everything that
the code had not changed when the checkpoint was taken.
"""

import os
import sys
import time
import warnings
from _locale import LC_COLLATE, LC_CTYPE, LC_MESSAGES, LC_MONETARY, LC_NUMERIC, LC_TIME, setlocale
from typing import Final

LOCALE_CATEGORIES: Final = (LC_CTYPE, LC_COLLATE, LC_MESSAGES, LC_MONETARY, LC_NUMERIC, LC_TIME)
_TIGHT_UMASK: Final = 0o077
_umask: Final = os.umask


def read_umask() -> int:
    """Return the umask, which can only be read by setting it; meanwhile threads' files are private ones."""
    found = _umask(_TIGHT_UMASK)
    _umask(found)
    return found


class InitialState:
    """The process's state as it was when this object was made."""

    __slots__ = (
        "cwd",
        "environ",
        "locale",
        "path",
        "recursion_limit",
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
        self.warning_filters = list(warnings.filters)
