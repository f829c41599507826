"""An interrupt reaches the blocking thread where it waits, or where it next wants to."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyrepl3_worker.host_calls.calls import HostCaller
from pyrepl3_worker.interrupts.signals import Interrupt


class _Blocking:
    """Runs a function on a thread that counts as the one for blocking code."""

    def __init__(self, job: Callable[[HostCaller], Any]) -> None:
        self.calls = HostCaller(
            lambda message: None,
            lambda message: None,
            lambda: None,
            lambda: None,
            lambda: self._thread.ident,
            0,
            lambda _: lambda: None,
            lambda: None,
        )
        self.raised: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(job,))

    def _run(self, job: Callable[[HostCaller], Any]) -> None:
        try:
            job(self.calls)
        except BaseException as error:
            self.raised.append(error)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> list[BaseException]:
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.raised


def test_a_sleeper_is_woken_with_the_error_and_the_caller_learns_of_it() -> None:
    blocking = _Blocking(lambda calls: calls.sleep(60))
    blocking.start()
    error = KeyboardInterrupt("now")
    asked = Interrupt(error)
    # Until it sleeps the answer is no, and the interrupt waits for it.
    while not blocking.calls.interrupt_blocking(asked):
        if asked.claim() is None:
            break
        asked.unclaim(error)
    assert blocking.join() == [error]
    assert asked.claim() is None


def test_what_strikes_before_the_wait_is_raised_as_it_begins() -> None:
    blocking = _Blocking(lambda calls: calls.sleep(60))
    error = KeyboardInterrupt("early")
    assert not blocking.calls.interrupt_blocking(Interrupt(error))
    blocking.start()
    assert blocking.join() == [error]


@pytest.mark.parametrize("seconds", [0.01, 0.0])
def test_an_interrupt_after_the_wait_is_not_swallowed(seconds: float) -> None:
    blocking = _Blocking(lambda calls: calls.sleep(seconds))
    blocking.start()
    assert blocking.join() == []
    asked = Interrupt(KeyboardInterrupt("late"))
    assert not blocking.calls.interrupt_blocking(asked)
    assert isinstance(asked.claim(), KeyboardInterrupt)
