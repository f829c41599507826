"""How much of everything is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The counts of one run. Rounds are interleaved samples; the rest is the work in one sample."""

    rounds: int
    """Samples of the cheap subjects: round trips, capability calls."""
    trips: int
    """Round trips in one sample of a fast contender; a slow one does a tenth."""
    pipelined: int
    """Executions submitted at once."""
    streams: int
    """Samples of the subjects that take seconds: pipelined executions, printed lines, bulk output."""
    lines: int
    """Lines that a cell prints."""
    megabytes: int
    """MiB that a cell writes."""
    spawns: int
    """Samples of starting things, and of memory."""
    cancels: int
    """Cancelled executions of each kind."""


FULL = Scale(
    rounds=21,
    trips=200,
    pipelined=20_000,
    streams=3,
    lines=200_000,
    megabytes=64,
    spawns=9,
    cancels=40,
)

QUICK = Scale(
    rounds=3,
    trips=50,
    pipelined=2_000,
    streams=1,
    lines=20_000,
    megabytes=4,
    spawns=2,
    cancels=5,
)
