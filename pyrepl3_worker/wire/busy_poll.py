"""BusyPoll: a short poll for the next message before the loop goes to sleep."""

import select
from os import sched_yield  # by name, as `perf_counter`: the code may replace the modules' own
from time import perf_counter
from typing import Final

_POLL_SECONDS: Final = 100e-6
"""Seconds."""
_RESUME_SECONDS: Final = 2 * _POLL_SECONDS
"""How soon a message has to arrive for polling to start again; waking up takes a part of that."""


class BusyPoll:
    """Polls for the next message while messages follow each other closely.

    A process that sleeps is awake some 20 µs after a byte has arrived for it, which is a quarter of a
    round trip. So after a client has answered at once, its next message is polled for; after a poll in
    vain, a message has to arrive soon before the next poll.
    """

    __slots__ = ("_last_poll", "_poll", "_polled_last_time", "_worth_polling")

    def __init__(self, fd: int) -> None:
        """Poll `fd`, which stays the caller's."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        self._poll = poller.poll
        self._last_poll = float("-inf")
        self._polled_last_time = False
        self._worth_polling = False

    def message_arrived(self) -> None:
        """Note that a message has arrived."""
        self._worth_polling = perf_counter() - self._last_poll < (
            _POLL_SECONDS if self._polled_last_time else _RESUME_SECONDS
        )

    def poll(self) -> None:
        """Poll for a moment until something can be read, if messages follow each other closely."""
        self._last_poll = now = perf_counter()
        self._polled_last_time = self._worth_polling
        if self._worth_polling:
            end = now + _POLL_SECONDS
            while not self._poll(0) and perf_counter() < end:
                # Another process may use this core.
                sched_yield()
