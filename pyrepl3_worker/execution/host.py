"""What surrounds an executor, and what it gives back: the seam between running code and a session."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.interrupts.signals import Interrupt


class _NoValue:
    """The class of `NO_VALUE`."""

    __slots__ = ()


NO_VALUE: Final = _NoValue()
"""What a cell gives that ends in a statement without a value. Not None, which is a value."""


class CellOutcome(msgspec.Struct):
    """How an execution ended."""

    value: Any
    error: BaseException | None
    encoded: Any
    """What the host's `show` or `explain` made of it."""
    duration: float


type DoneCallback = Callable[[WorkerExecution, CellOutcome], None]


class Host(Protocol):
    """What surrounds an executor: a session, or nothing (`NoHost`)."""

    def execution_started(self, execution: WorkerExecution) -> None:
        """An execution starts."""

    def encode_value(self, execution: WorkerExecution, value: Any) -> Any:
        """Prepare a value for sending. Runs where the code runs: its `__repr__` may need stopping."""

    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Any:
        """Prepare an error for sending. Runs where the code runs."""

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Raise in the blocking thread if it waits for something of ours; say whether it will."""
        ...

    def execution_ended(self, execution: WorkerExecution) -> None:
        """An execution is over; what it wrote must be on its way before this returns."""

    def repair(self) -> None:
        """The outcome has been handed over: put right what the code may have broken, before more runs."""

    def flush_held_results(self) -> None:
        """Code is about to run that may take its time: whatever is held back must go out now."""

    def read_messages(self) -> None:
        """Code holds the loop's thread, and somebody rang: read what has arrived."""


class NullHost:
    """An executor on its own."""

    def execution_started(self, execution: WorkerExecution) -> None:
        """Nothing to do."""

    def encode_value(self, execution: WorkerExecution, value: Any) -> Any:
        """Nothing to show."""

    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Any:
        """Nothing to explain."""

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Nothing waits."""
        return False

    def execution_ended(self, execution: WorkerExecution) -> None:
        """Nothing to do."""

    def repair(self) -> None:
        """Nothing to do."""

    def flush_held_results(self) -> None:
        """Nothing is held back."""

    def read_messages(self) -> None:
        """Nobody to hear."""
