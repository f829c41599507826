"""How long an execution has run, as its time limit counts: not while it only waits for a person."""

from collections.abc import Callable
from typing import Final

_IDLE_SHARE: Final = 0.05
"""Of a core: an execution that uses no more than this while it waits computes nothing worth naming."""
_TICK_SECONDS: Final = 0.01
"""The kernel counts CPU time in steps of this (USER_HZ), so a wait may seem to use as much more."""
_CHECK_SECONDS: Final = 0.5
"""The time that stands still is looked at again after at least so many seconds: a tick is then a fiftieth."""


class TimeLimit:
    """The seconds that one execution may run, and those that it has.

    Time stands still while the execution waits for an answer that pauses it, if its processes compute less
    than 5 % of a core meanwhile. A wait during which they compute more counts whole. Short waits are looked
    at together: each is shorter than the steps in which CPU time is counted.
    """

    __slots__ = (
        "_began", "_clock", "_cpu_seconds", "_paused_at", "_paused_cpu", "_still", "_waits", "_waits_cpu",
        "seconds",
    )  # fmt: skip

    def __init__(
        self, seconds: float, clock: Callable[[], float], cpu_seconds: Callable[[], float | None]
    ) -> None:
        """Allow `seconds` by `clock`; `cpu_seconds` returns what its processes have used, if known."""
        self.seconds = seconds
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._began: float | None = None
        self._paused_at: float | None = None
        self._paused_cpu: float | None = None
        self._still = 0.0
        # Of waits that are not long enough yet, together, to tell what was computed meanwhile.
        self._waits = self._waits_cpu = 0.0

    @property
    def began(self) -> bool:
        """Whether the execution has begun."""
        return self._began is not None

    def begin(self, *, paused: bool) -> None:
        """Start the clock: the execution begins, and waits already if `paused`."""
        self._began = self._clock()
        if paused:
            self._open_wait()

    def note(self, *, paused: bool) -> None:
        """Take note of whether the execution waits for an answer that pauses it."""
        if self._began is None:
            return
        if self._paused_at is not None:
            self._close_wait()
        if paused:
            self._open_wait()

    def remaining(self) -> float:
        """Return the seconds that are left; 0 when none are."""
        assert self._began is not None
        if self._paused_at is not None:
            self._close_wait()
            self._open_wait()
        still = self._still + self._still_of_waits()
        left = max(0.0, self.seconds - (self._clock() - self._began - still))
        # While it waits nothing is lost by looking later, and a little time is not to be looked at often.
        return left if left == 0 or self._paused_at is None else max(left, _CHECK_SECONDS)

    def _open_wait(self) -> None:
        self._paused_at = self._clock()
        self._paused_cpu = self._cpu_seconds()

    def _close_wait(self) -> None:
        assert self._paused_at is not None
        waited = self._clock() - self._paused_at
        before, now = self._paused_cpu, self._cpu_seconds()
        self._paused_at = self._paused_cpu = None
        if before is None or now is None:
            return
        self._waits += waited
        self._waits_cpu += max(0.0, now - before)
        if self._waits >= _CHECK_SECONDS:
            self._still += self._still_of_waits()
            self._waits = self._waits_cpu = 0.0

    def _still_of_waits(self) -> float:
        """Return for how long time stood still in those that are looked at together."""
        return self._waits if self._waits_cpu <= _IDLE_SHARE * self._waits + _TICK_SECONDS else 0.0
