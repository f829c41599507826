"""Puts back, after each execution, what the code may have broken and the worker needs itself."""

import sys
from typing import Any, Final

from pyrepl3_worker.interrupts.signals import WakeupSignal
from pyrepl3_worker.isolation.after_import import act_on_imported
from pyrepl3_worker.isolation.builtins_guard import repair_namespace, unblock_wakeup_signal
from pyrepl3_worker.wire.stdio import Stdio

_MIN_RECURSION_LIMIT: Final = 200
_getrecursionlimit: Final = sys.getrecursionlimit


class Repair:
    """Knows the state that the session began with, and puts parts of it back."""

    def __init__(self, stdio: Stdio, wakeup: WakeupSignal, namespace: dict[str, Any]) -> None:
        """Remember the recursion limit as it is now."""
        self._stdio = stdio
        self._wakeup = wakeup
        self._namespace = namespace
        self._recursion_limit = sys.getrecursionlimit()

    def recursion_limit(self) -> None:
        """Put back a recursion limit that is too low for the worker's own calls. Must be done first."""
        if _getrecursionlimit() < _MIN_RECURSION_LIMIT:
            sys.setrecursionlimit(self._recursion_limit)

    def standard_fds(self) -> bool:
        """Reopen closed standard fds.

        Returns:
            Whether something may wait in the capture pipes. False is certain.
        """
        return self._stdio.repair()

    def patches(self) -> None:
        """Patch the libraries that have been imported past the worker's own finder."""
        act_on_imported()

    def builtins(self) -> None:
        """Put back what every cell needs: the namespace's builtins and the wake-up signal's handler.

        What the code has replaced on purpose (`builtins.print`, fd 1) stays as it is.
        """
        repair_namespace(self._namespace)
        self._wakeup.install()
        unblock_wakeup_signal()
