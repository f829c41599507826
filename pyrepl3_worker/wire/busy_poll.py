"""A moment's wait for the next message before the loop goes to sleep."""

import select
from os import sched_yield  # by name, as `perf_counter`: the code may replace the modules' own
from time import perf_counter
from typing import Final

_POLL_SECONDS: Final = 100e-6
"""Seconds."""
_RESUME_SECONDS: Final = 2 * _POLL_SECONDS
"""How soon a message has to come for the next one to be waited for; being woken takes a part of that."""


class BusyPoll:
    """Looks out for the next message as long as messages come one upon the other.

    A process that sleeps is awake again some 20 µs after a byte has come for it, which is a quarter of
    a round trip. So a parent that has answered at once is waited for when it is its turn again; once it
    was waited for in vain, it has to come soon before that is tried again.
    """

    __slots__ = ("_last_poll", "_poll", "_polled_last_time", "_worth_polling")

    def __init__(self, fd: int) -> None:
        """Look at `fd`, which stays the caller's."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        self._poll = poller.poll
        self._last_poll = float("-inf")
        self._polled_last_time = False
        self._worth_polling = False

    def message_arrived(self) -> None:
        """Something can be read."""
        self._worth_polling = perf_counter() - self._last_poll < (
            _POLL_SECONDS if self._polled_last_time else _RESUME_SECONDS
        )

    def poll(self) -> None:
        """All is done: wait for a moment, if that has been worth it, until something can be read."""
        self._last_poll = now = perf_counter()
        self._polled_last_time = self._worth_polling
        if self._worth_polling:
            end = now + _POLL_SECONDS
            while not self._poll(0) and perf_counter() < end:
                # Whoever else wants this core may have it.
                sched_yield()
