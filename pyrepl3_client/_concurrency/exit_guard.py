"""What is still open when the interpreter exits is ended by force, so that the interpreter always ends.

At that time nothing can be awaited: event loops have ended, and threads that are daemons stop where they are.
`atexit` handlers run in the opposite order of their registration, so a program's own come before this one.
"""

import atexit
import os
import warnings
from collections.abc import Callable
from typing import Final

type Kill = Callable[[], None]

_open: Final[dict[object, tuple[str | None, Kill]]] = {}


class ExitGuard:
    """Has something ended by force at the interpreter's exit, unless it is released before."""

    def __init__(self, what: str | None, kill: Kill) -> None:
        """Guard what has been opened.

        Args:
            what: says in a warning what was not closed; None for what has no owner to be warned.
            kill: ends it at once, from any thread; awaits nothing.
        """
        _open[self] = what, kill

    def release(self) -> None:
        """Take note that it was closed. Idempotent."""
        _open.pop(self, None)


def _end_all() -> None:
    left = list(_open.values())
    _open.clear()
    for _, kill in left:
        kill()
    for what in (what for what, _ in left if what is not None):
        warnings.warn(f"{what}; it is ended by force", ResourceWarning, stacklevel=2)


atexit.register(_end_all)
# A forked child has none of it: its parent's workers are not its own.
os.register_at_fork(after_in_child=_open.clear)
