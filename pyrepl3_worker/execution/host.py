"""Host: what an executor needs of the session around it, and the outcome that it returns."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from pyrepl3_worker.code.compiler import Translator
from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.interrupts.signals import Interrupt


class _NoValue:
    """The class of `NO_VALUE`."""

    __slots__ = ()


NO_VALUE: Final = _NoValue()
"""The value of a cell whose last statement has none. Not None, which is a value."""


class CellOutcome(msgspec.Struct):
    """How an execution ended."""

    value: Any
    error: BaseException | None
    encoded: Any
    """What the host's `encode_value` or `encode_error` returned."""
    duration: float


type DoneCallback = Callable[[WorkerExecution, CellOutcome], None]


class Host(Protocol):
    """What surrounds an executor: a session, or nothing (`NoHost`)."""

    def execution_started(self, execution: WorkerExecution) -> None:
        """Note that an execution starts."""

    def encode_value(self, execution: WorkerExecution, value: Any) -> Any:
        """Prepare a value for sending. Runs where the code runs: its `__repr__` may need stopping."""

    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Any:
        """Prepare an error for sending. Runs where the code runs."""

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Raise in the blocking thread if it waits in a function of the worker; return whether it will."""
        ...

    def execution_ended(self, execution: WorkerExecution) -> None:
        """Note that an execution has ended; what it wrote must have been sent when this returns."""

    def repair(self) -> None:
        """Put right what the code may have broken; called after the outcome, before anything else runs."""

    def flush_held_results(self) -> None:
        """Send what is held back: code is about to run that may take long."""

    def read_messages(self) -> None:
        """Read the messages that have arrived; called by the signal's handler while code runs."""

    def watch_input(self) -> Callable[[], None]:
        """Look from time to time whether the client is gone, as the loop is about to be held for long.

        Returns:
            What to call when it is free again.
        """
        ...


class CellSyntax(Translator, Protocol):
    """What stands around cells whose syntax is more than Python's. Its methods run as the code does."""

    def before_cell(self, execution: WorkerExecution) -> None:
        """Note that a cell begins."""

    def after_cell(self, execution: WorkerExecution, value: Any, error: BaseException | None) -> None:
        """Note that a cell has ended, with a value or an error."""


class NullHost:
    """The host of an executor that is used by itself: it does nothing."""

    def execution_started(self, execution: WorkerExecution) -> None:
        """Do nothing."""

    def encode_value(self, execution: WorkerExecution, value: Any) -> Any:
        """Return None: there is no message to prepare."""

    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Any:
        """Return None: there is no message to prepare."""

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Return False: nothing waits."""
        return False

    def execution_ended(self, execution: WorkerExecution) -> None:
        """Do nothing."""

    def repair(self) -> None:
        """Do nothing."""

    def flush_held_results(self) -> None:
        """Do nothing: nothing is held back."""

    def watch_input(self) -> Callable[[], None]:
        """Do nothing: there is no client."""
        return lambda: None

    def read_messages(self) -> None:
        """Do nothing: there are no messages."""
