"""Mends, after each execution, what code may have broken that the worker itself stands on."""

import builtins
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pyrepl3_worker.cancellation import Doorbell
from pyrepl3_worker.stdio import Stdio

if TYPE_CHECKING:
    from pyrepl3_worker.checkpoint import Checkpointer

_LEAST_RECURSION: Final = 200


class Health:
    """Knows how things were when the session began."""

    def __init__(self, stdio: Stdio, doorbell: Doorbell) -> None:
        """Take note of the builtins as they are now."""
        self._stdio = stdio
        self._doorbell = doorbell
        self._builtins: dict[str, Any] = dict(builtins.__dict__)
        self._recursion_limit = sys.getrecursionlimit()
        self._checkpointer: Checkpointer | None = None

    def mend(self) -> None:
        """Put back deleted builtins, the doorbell, closed standard fds and a workable recursion limit.

        What the code has replaced on purpose (`builtins.print`, fd 1) stays as it is.
        """
        # First and without any builtin: those may be what is missing.
        self._mend_builtins(builtins.__dict__, self._builtins)
        if sys.getrecursionlimit() < _LEAST_RECURSION:
            sys.setrecursionlimit(self._recursion_limit)
        self._doorbell.install()
        self._stdio.mend()

    @staticmethod
    def _mend_builtins(now: dict[str, Any], then: dict[str, Any]) -> None:
        if now.__len__() < then.__len__():
            for name, value in then.items():
                now.setdefault(name, value)

    def checkpointer(self, make: "Callable[[], Checkpointer]") -> "Checkpointer":
        """Give the session's checkpointer, made when first needed."""
        if self._checkpointer is None:
            self._checkpointer = make()
        return self._checkpointer
