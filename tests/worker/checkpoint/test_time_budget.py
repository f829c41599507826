"""The time that objects' own code may take, while its thread waits for a processor most of the time."""

import itertools
from time import monotonic
from typing import Any, cast

import pytest

from pyrepl3_worker.checkpoint import time_budget
from pyrepl3_worker.checkpoint.time_budget import BudgetExceeded, TimeBudget
from pyrepl3_worker.interrupts.timers import TimerThread

PATIENCE = 30.0
"""Seconds for what takes one."""


class BusyMachine:
    """In place of the clock of waiting: of all time, the thread waits four fifths."""

    def __init__(self) -> None:
        self.last = monotonic()

    def start(self) -> None:
        self.last = monotonic()

    def stop(self) -> None: ...

    def waited(self) -> float:
        now = monotonic()
        passed, self.last = now - self.last, now
        return 0.8 * passed


class NoSignal:
    def install_if_main(self) -> None: ...

    def send(self) -> None: ...


def test_code_that_is_called_without_end_is_stopped_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was given all the time that its thread had waited, also while other code ran: and never ended."""
    monkeypatch.setattr(time_budget, "_WaitingClock", BusyMachine)
    timers = TimerThread()
    budget = TimeBudget(timers, cast(Any, NoSignal()))
    items, until = itertools.count(), monotonic() + PATIENCE

    def take_all() -> None:
        while monotonic() < until:
            budget.call_code(next, items)
            for _ in range(200):
                pass

    budget.start(0.05)
    try:
        with pytest.raises(BudgetExceeded, match=r"it took longer than 0\.025 s"):
            budget.run_data(take_all)
    finally:
        budget.stop()
        timers.stop()
