"""What a call in another thread came to, for the one thread that waits for it."""

import threading
from contextlib import suppress


class Outcome[T]:
    """A value or an error that comes from another thread. The first that is set stays.

    One thread waits, and Ctrl-C may strike it anywhere. `concurrent.futures` takes a condition's lock for a
    wait in functions written in Python; a KeyboardInterrupt in there leaves it taken, and then the thread
    that sets the outcome waits for ever. Nothing is held here while Python code runs.
    """

    def __init__(self) -> None:
        """Make one that has not been set."""
        self._ends: list[tuple[T | None, BaseException | None]] = []
        self._signal = threading.Lock()
        self._signal.acquire()

    @property
    def is_set(self) -> bool:
        """Whether it has a value or an error."""
        return bool(self._ends)

    def set(self, value: T | None, error: BaseException | None = None) -> None:
        """Take a value, or an error if there is one. From any thread; without effect once it is set."""
        self._ends.append((value, error))
        with suppress(RuntimeError):  # it was set before
            self._signal.release()

    def wait(self) -> None:
        """Wait until it is set. A KeyboardInterrupt out of it loses nothing: wait again."""
        while not self._ends:
            self._signal.acquire()

    def result(self) -> T:
        """Return the value, or raise the error. It has to be set.

        Raises:
            BaseException: the error.
        """
        value, error = self._ends[0]
        if error is None:
            return value  # pyright: ignore[reportReturnType] - there is one when there is no error
        try:
            raise error
        finally:
            del self, error  # the error's traceback holds this frame
