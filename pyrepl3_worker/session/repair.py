"""Mends, after each execution, what code may have broken that the worker itself stands on."""

import sys
from typing import Any, Final

from pyrepl3_worker.interrupts.signals import WakeupSignal
from pyrepl3_worker.isolation.builtins_guard import repair_namespace, unblock_wakeup_signal
from pyrepl3_worker.wire.stdio import Stdio

_MIN_RECURSION_LIMIT: Final = 200
_getrecursionlimit: Final = sys.getrecursionlimit


class Repair:
    """Knows how things were when the session began."""

    def __init__(self, stdio: Stdio, wakeup: WakeupSignal, namespace: dict[str, Any]) -> None:
        """Take note of the recursion limit as it is now."""
        self._stdio = stdio
        self._wakeup = wakeup
        self._namespace = namespace
        self._recursion_limit = sys.getrecursionlimit()

    def recursion_limit(self) -> None:
        """Put back a recursion limit that leaves our own calls no room; the first thing that is needed."""
        if _getrecursionlimit() < _MIN_RECURSION_LIMIT:
            sys.setrecursionlimit(self._recursion_limit)

    def standard_fds(self) -> bool:
        """Reopen closed standard fds; say whether something may wait in the capture pipes (no is sure)."""
        return self._stdio.repair()

    def builtins(self) -> None:
        """Put back what else no cell can do without: its builtins, the doorbell.

        What the code has replaced on purpose (`builtins.print`, fd 1) stays as it is.
        """
        repair_namespace(self._namespace)
        self._wakeup.install()
        unblock_wakeup_signal()
