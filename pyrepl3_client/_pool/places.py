"""The places of a pool: how many sessions may be open at a time, and who waits for one, in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from pyrepl3_schemas.executor_config import as_int, shown

_MAX_SIZE: Final = 10_000
"""Above it stands a mistake: each worker is a process, and takes megabytes."""


class Place:
    """The right to have one session open. Give it back once the session has ended."""

    __slots__ = ("_places",)

    def __init__(self, places: "Places") -> None:
        """Made by `Places.take`."""
        self._places: Places | None = places

    def give_back(self) -> None:
        """Let the next one have it. Idempotent."""
        places, self._places = self._places, None
        if places is not None:
            places.on_given_back()


class Places:
    """A number of places, which go to those that wait in the order in which they came.

    One that is given back goes to the first that waits at once, so that no newcomer comes before it.
    Who is cancelled while it waits has none, also if it got one in that same turn of the loop.
    """

    def __init__(self, number: int, on_wait: Callable[[], None] = lambda: None) -> None:
        """Have that many; `on_wait` is called when a request has to wait."""
        self.number = number
        self.taken = 0
        self.longest_wait = 0.0
        """Seconds."""
        self._on_wait = on_wait
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refusal: Callable[[], Exception] | None = None
        self._emptied: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(not future.done() for future in self._waiting)

    async def take(self) -> Place:
        """Wait for a place.

        Raises:
            Exception: that of `refuse`: there are no places any more.
        """
        if self._refusal is not None:
            raise self._refusal()
        if self.taken < self.number:
            self.taken += 1
            return Place(self)
        loop = asyncio.get_running_loop()
        began = loop.time()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        try:
            self._on_wait()
            await future
        except BaseException:
            if future in self._waiting:
                self._waiting.remove(future)
            elif future.done() and not future.cancelled() and future.exception() is None:
                self.on_given_back()  # it was given one in the turn in which it was cancelled
            raise
        self.longest_wait = max(self.longest_wait, loop.time() - began)
        return Place(self)

    def on_given_back(self) -> None:
        """Hand a place on, or keep it for the next one who comes."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self.taken -= 1
        if self.taken == 0:
            emptied, self._emptied = self._emptied, []
            for each in emptied:
                if not each.done():
                    each.set_result(None)

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Give no more places, also to those that wait; None gives them again."""
        self._refusal = error
        if error is None:
            return
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(error())

    async def wait_empty(self) -> None:
        """Wait until no place is taken."""
        while self.taken:
            emptied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._emptied.append(emptied)
            await emptied


def checked_count(what: str, value: int) -> int:
    """Return a number of workers or sessions.

    Args:
        what: name of the argument, for the error.
        value: the number.

    Raises:
        ValueError: it is below 1, or too large.
        TypeError: it is no whole number.
    """
    number = as_int(what, value)
    if not 1 <= number <= _MAX_SIZE:
        raise ValueError(f"{what} must be between 1 and {_MAX_SIZE:,}, not {shown(value)}")
    return number
