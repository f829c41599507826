"""Mends, after each execution, what code may have broken that the worker itself stands on."""

import sys
from typing import Any, Final

from pyrepl3_worker.interrupts.signals import Doorbell
from pyrepl3_worker.isolation.builtins_guard import hear_doorbell, mend_namespace
from pyrepl3_worker.wire.stdio import Stdio

_LEAST_RECURSION: Final = 200
_getrecursionlimit: Final = sys.getrecursionlimit


class Health:
    """Knows how things were when the session began."""

    def __init__(self, stdio: Stdio, doorbell: Doorbell, namespace: dict[str, Any]) -> None:
        """Take note of the recursion limit as it is now."""
        self._stdio = stdio
        self._doorbell = doorbell
        self._namespace = namespace
        self._recursion_limit = sys.getrecursionlimit()

    def make_room(self) -> None:
        """Put back a recursion limit that leaves our own calls no room; the first thing that is needed."""
        if _getrecursionlimit() < _LEAST_RECURSION:
            sys.setrecursionlimit(self._recursion_limit)

    def mend_fds(self) -> bool:
        """Reopen closed standard fds; say whether something may wait in the capture pipes (no is sure)."""
        return self._stdio.mend()

    def mend(self) -> None:
        """Put back what else no cell can do without: its builtins, the doorbell.

        What the code has replaced on purpose (`builtins.print`, fd 1) stays as it is.
        """
        mend_namespace(self._namespace)
        self._doorbell.install()
        hear_doorbell()
