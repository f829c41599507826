"""What a worker's death means for its session, decided without touching anything."""

from collections import deque
from typing import Final

_QUICK: Final = 10.0
"""Deaths within so many seconds are a series."""


_SERIES: Final = 3
"""So many deaths in a series cost nothing but their time."""


_FIRST_WAIT: Final = 0.1


_LONGEST_WAIT: Final = 5.0


class Backoff:
    """Decides how long to wait before the next worker: not at all, unless they die one after the other."""

    def __init__(self) -> None:
        """No worker has died yet."""
        self._deaths: deque[float] = deque(maxlen=16)

    def next(self, now: float) -> float:
        """Count a death at `now` (seconds of any steady clock); give the seconds to wait."""
        self._deaths.append(now)
        series = sum(1 for death in self._deaths if now - death < _QUICK)
        return 0.0 if series <= _SERIES else min(_FIRST_WAIT * 2 ** (series - _SERIES - 1), _LONGEST_WAIT)
