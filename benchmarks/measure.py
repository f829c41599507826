"""Contenders in turns, and what their samples come to."""

import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

from benchmarks.peers import NoFigureError
from benchmarks.scale import Scale

type Unit = Literal["s", "/s", "B"]
type Sampler = Callable[[], Awaitable[float | Sequence[float]]]
"""Does the work of one turn and gives its figure, or figures, in the subject's unit."""
type Opener = Callable[[Scale], AbstractAsyncContextManager[Sampler]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of samples comes to."""

    median: float
    low: float
    high: float
    p95: float
    p99: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Summary":
        """Sum up at least one sample. Percentiles are of the nearest rank, never interpolated."""
        ordered = sorted(samples)
        p95, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (95, 99))
        return cls(statistics.median(ordered), ordered[0], ordered[-1], p95, p99, len(ordered))


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach.

    `better` is by how many times ours must be better than the peer's (under 1: it may be that much
    worse); `within` is by how much ours may be more than the peer's, in the subject's unit; `at_most` and
    `at_least` bound our own median, in that unit too.
    """

    better: float | None = None
    within: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def met(self, ours: Summary, theirs: Summary | None, better: Summary | None) -> bool:
        """Return whether the medians reach it."""
        if self.better is not None and (better is None or better.median < self.better):
            return False
        if self.within is not None and (theirs is None or ours.median - theirs.median > self.within):
            return False
        if self.at_most is not None and ours.median > self.at_most:
            return False
        return self.at_least is None or ours.median >= self.at_least


def verify(got: object, wanted: object) -> None:
    """Check a contender's result: a wrong answer is not fast.

    Raises:
        RuntimeError: the two differ.
    """
    if got != wanted:
        raise RuntimeError(f"a contender gave {got!r}, not {wanted!r}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Something to measure beside. The name is formatted with the `scale`, as a subject's title is."""

    name: str
    open: Opener
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to measure: how pyrepl3 does it, which peers do, and the figure to reach without a peer.

    The title is formatted with the `scale`: it says how much `{scale.many}` comes to.
    """

    name: str
    title: str
    unit: Unit
    rounds: Callable[[Scale], int]
    ours: Opener
    peers: Sequence[Peer] = ()
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `better` holds the ratios of the pairs, over 1 where ours is better.

    `missing` says why there is no figure: the peer's, or, where `ours` is None, ours.
    """

    subject: str
    title: str
    unit: Unit
    ours: Summary | None
    peer: str | None = None
    theirs: Summary | None = None
    better: Summary | None = None
    goal: Goal | None = None
    missing: str | None = None

    @property
    def met(self) -> bool | None:
        """Return whether the goal is met; None where there is none, or no peer to hold it against."""
        if self.goal is None or self.missing is not None or self.ours is None:
            return None
        return self.goal.met(self.ours, self.theirs, self.better)


@dataclass(slots=True)
class _Contender:
    sample: Sampler
    samples: list[float] = field(default_factory=list[float])
    missing: str | None = None

    async def turn(self) -> None:
        figures = await self.sample()
        self.samples.extend(figures if isinstance(figures, Sequence) else (figures,))


async def _absent() -> float:
    raise AssertionError("an absent peer is not sampled")


async def measure(subject: Subject, scale: Scale, *, alone: bool = False) -> list[Row]:
    """Measure a subject: ours and each peer, round after round.

    Each round begins with another one, since a contender that follows a peer with threads and processes
    pays for what those still do.

    Args:
        subject: what to measure.
        scale: how much of it.
        alone: leave the peers out.
    """
    peers = () if alone else subject.peers
    turns = subject.rounds(scale)
    title = subject.title.format(scale=scale)
    async with AsyncExitStack() as stack:
        ours = await _enter(stack, subject.ours, scale)
        if ours.missing is not None:
            return [Row(subject.name, title, subject.unit, None, missing=ours.missing)]
        theirs = [await _enter(stack, peer.open, scale) for peer in peers]
        for turn in range(1, turns + 1):
            if turn in (1, turns) or turn % 10 == 0:
                print(f"  {subject.name}: round {turn} of {turns}", file=sys.stderr, flush=True)
            first = (turn - 1) % (1 + len(theirs))
            for contender in ([ours, *theirs] * 2)[first : first + 1 + len(theirs)]:
                if contender.missing is None:
                    await contender.turn()
    own = Row(subject.name, title, subject.unit, Summary.of(ours.samples), goal=subject.goal)
    rows = [_row(own, ours, peer, scale, them) for peer, them in zip(peers, theirs, strict=True)]
    return rows if rows and subject.goal is None else [own, *rows]


async def _enter(stack: AsyncExitStack, opener: Opener, scale: Scale) -> _Contender:
    """Open a contender and let it run once: caches and lazy imports are met once, so that is no sample."""
    try:
        contender = _Contender(await stack.enter_async_context(opener(scale)))
        await contender.sample()
    except NoFigureError as error:
        return _Contender(_absent, missing=str(error))
    return contender


def _row(own: Row, ours: _Contender, peer: Peer, scale: Scale, theirs: _Contender) -> Row:
    row = replace(own, peer=peer.name.format(scale=scale), goal=peer.goal)
    if theirs.missing is not None:
        return replace(row, missing=theirs.missing)
    pairs = zip(ours.samples, theirs.samples, strict=True)
    return replace(
        row,
        theirs=Summary.of(theirs.samples),
        better=Summary.of([a / b if own.unit == "/s" else b / a for a, b in pairs]),
    )
