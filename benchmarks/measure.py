"""Contenders in turns, and what their samples come to."""

import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.peers import NoFigureError
from benchmarks.scale import Scale

type Unit = Literal["s", "/s", "B"]
type Sampler = Callable[[], Awaitable[float]]
"""Does one sample's work and gives the figure, in the subject's unit."""
type Opener = Callable[[Scale], AbstractAsyncContextManager[Sampler]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of samples comes to."""

    median: float
    low: float
    high: float
    p95: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Summary":
        """Sum up at least one sample. The 95th percentile is the nearest rank, never interpolated."""
        ordered = sorted(samples)
        rank = max(0, -(-len(ordered) * 95 // 100) - 1)
        return cls(statistics.median(ordered), ordered[0], ordered[-1], ordered[rank], len(ordered))


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach.

    `better` is by how many times ours must be better than the peer's (under 1: it may be that much
    worse); `at_most` and `at_least` bound our own median in the subject's unit.
    """

    better: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def met(self, ours: Summary, better: Summary | None) -> bool:
        """Tell whether the medians reach it."""
        if self.better is not None and (better is None or better.median < self.better):
            return False
        if self.at_most is not None and ours.median > self.at_most:
            return False
        return self.at_least is None or ours.median >= self.at_least


def verify(got: object, wanted: object) -> None:
    """Hold a contender to its result: a wrong answer is not fast.

    Raises:
        RuntimeError: the two differ.
    """
    if got != wanted:
        raise RuntimeError(f"a contender gave {got!r}, not {wanted!r}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody to be measured beside."""

    name: str
    open: Opener
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to measure: how we do it, who else does, and the figure to reach by ourselves."""

    name: str
    title: str
    unit: Unit
    rounds: Callable[[Scale], int]
    ours: Opener
    peers: Sequence[Peer] = ()
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `better` holds the ratios of the pairs, over 1 where ours is better."""

    subject: str
    title: str
    unit: Unit
    ours: Summary
    peer: str | None = None
    theirs: Summary | None = None
    better: Summary | None = None
    goal: Goal | None = None
    missing: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none, or no peer to hold it against."""
        if self.goal is None or self.missing is not None:
            return None
        return self.goal.met(self.ours, self.better)


@dataclass(slots=True)
class _Contender:
    sample: Sampler
    samples: list[float] = field(default_factory=list[float])
    missing: str | None = None


async def _absent() -> float:
    raise AssertionError("an absent peer is not sampled")


async def measure(subject: Subject, scale: Scale, *, alone: bool = False) -> list[Row]:
    """Measure a subject: ours, then each peer, round after round.

    Args:
        subject: what to measure.
        scale: how much of it.
        alone: leave the peers out.
    """
    peers = () if alone else subject.peers
    turns = subject.rounds(scale)
    async with AsyncExitStack() as stack:
        ours = _Contender(await stack.enter_async_context(subject.ours(scale)))
        await ours.sample()
        theirs = [await _enter(stack, peer, scale) for peer in peers]
        for turn in range(1, turns + 1):
            if turn in (1, turns) or turn % 10 == 0:
                print(f"  {subject.name}: round {turn} of {turns}", file=sys.stderr, flush=True)
            for contender in (ours, *theirs):
                if contender.missing is None:
                    contender.samples.append(await contender.sample())
    own = Summary.of(ours.samples)
    rows = [_row(subject, own, ours, peer, them) for peer, them in zip(peers, theirs, strict=True)]
    if rows and subject.goal is None:
        return rows
    return [Row(subject.name, subject.title, subject.unit, own, goal=subject.goal), *rows]


async def _enter(stack: AsyncExitStack, peer: Peer, scale: Scale) -> _Contender:
    """Open a peer and let it run once: caches and lazy imports are met once, so that is no sample."""
    try:
        contender = _Contender(await stack.enter_async_context(peer.open(scale)))
        await contender.sample()
    except NoFigureError as error:
        return _Contender(_absent, missing=str(error))
    return contender


def _row(subject: Subject, own: Summary, ours: _Contender, peer: Peer, theirs: _Contender) -> Row:
    if theirs.missing is not None:
        return Row(
            subject.name, subject.title, subject.unit, own, peer.name, goal=peer.goal, missing=theirs.missing
        )
    pairs = zip(ours.samples, theirs.samples, strict=True)
    return Row(
        subject.name,
        subject.title,
        subject.unit,
        own,
        peer.name,
        theirs=Summary.of(theirs.samples),
        better=Summary.of([a / b if subject.unit == "/s" else b / a for a, b in pairs]),
        goal=peer.goal,
    )
