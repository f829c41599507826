"""The specification's ExecutionMetrics: totals, a histogram of durations, modes, cache hits."""

from typing import Final

_BUCKETS: Final = 40
"""2**39 microseconds is six days."""


class ExecutionMetrics:
    """Counts executions. Durations go into buckets, so that memory does not grow with use."""

    __slots__ = (
        "duration_buckets",
        "failed",
        "mode_distribution",
        "succeeded",
        "total_duration",
    )

    def __init__(self) -> None:
        """Begin with zeros."""
        self.succeeded = 0
        self.failed = 0
        self.total_duration = 0.0
        self.duration_buckets = [0] * _BUCKETS
        self.mode_distribution: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Executions that have ended."""
        return self.succeeded + self.failed

    def record_execution(self, mode: str, duration: float, *, success: bool) -> None:
        """Count an execution that took `duration` seconds. Bucket i counts those below 2**i microseconds."""
        if success:
            self.succeeded += 1
        else:
            self.failed += 1
        self.total_duration += duration
        bucket = int(duration * 1e6).bit_length()
        self.duration_buckets[bucket if bucket < _BUCKETS else _BUCKETS - 1] += 1
        self.mode_distribution[mode] = self.mode_distribution.get(mode, 0) + 1
