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
    bursts: int
    """Samples of the durable executions, and"""
    burst: int
    """how many one after the other make one, each with a figure of its own."""
    few: int
    """Executions on record before those that are timed: few,"""
    some: int
    """some,"""
    many: int
    """and many."""
    local: int
    """The most executions for Resonate's own LocalConnection: it takes longer with each."""
    saves: int
    """Samples of checkpoints, and of cells among automatic ones."""
    shrink: int
    """By how much the namespaces that are saved are smaller than they are called."""
    pause: float
    """The most seconds between two cells among automatic checkpoints."""
    earlier: tuple[int, int, int]
    """Cells that have ended before a worker is killed: few, some, many."""
    names: int
    """Sessions by name of a pool,"""
    live: int
    """how many of them may be live at a time,"""
    returns: int
    """and samples of their use."""


FULL = Scale(
    rounds=21,
    trips=200,
    pipelined=20_000,
    streams=3,
    lines=200_000,
    megabytes=64,
    spawns=9,
    cancels=40,
    bursts=8,
    burst=25,
    few=100,
    some=1_000,
    many=10_000,
    local=4_000,
    saves=20,
    shrink=1,
    pause=0.5,
    earlier=(10, 100, 1_000),
    names=500,
    live=20,
    returns=500,
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
    bursts=2,
    burst=5,
    few=20,
    some=50,
    many=100,
    local=100,
    saves=3,
    shrink=20,
    pause=0.2,
    earlier=(2, 5, 20),
    names=40,
    live=5,
    returns=40,
)
