"""The run: sessions at once, a budget of executions, samples of memory, and a look at what is left."""

import asyncio
import os
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyrepl3_client as pyrepl3
from tests.stress.soak import disruptions, steps
from tests.stress.soak.resources import (
    ResourceSnapshot,
    Sample,
    growth,
    left_behind,
    library_objects,
    settled_bytes,
)
from tests.stress.soak.steps import Hand, MismatchError, check

type Step = Callable[[Hand], Awaitable[None]]

MIX: dict[Step, float] = {
    steps.a_value: 20,
    steps.counting: 20,
    steps.a_burst: 8,
    steps.a_function: 8,
    steps.printing: 8,
    steps.writing_past_python: 4,
    steps.awaiting: 6,
    steps.blocking: 3,
    steps.an_error: 4,
    steps.no_python: 3,
    steps.asking: 3,
    steps.calling: 3,
    steps.a_background_task: 2,
    steps.a_known_id: 1,
    steps.questions: 2,
    steps.saving: 0.5,
    steps.a_child_process: 0.5,
    disruptions.cancelled: 2,
    disruptions.interrupted: 1,
    disruptions.out_of_time: 1,
    disruptions.cancelled_in_the_queue: 1,
    disruptions.caller_cancelled: 0.5,
    disruptions.killed_idle: 0.15,
    disruptions.killed_at_work: 0.15,
    disruptions.ends_its_worker: 0.04,
    disruptions.restarted: 0.1,
}
"""How often each step is taken, in relation to the others."""
ENDS: tuple[Step, ...] = (
    disruptions.killed_idle,
    disruptions.killed_at_work,
    disruptions.ends_its_worker,
    disruptions.restarted,
)
"""What each session begins with, in turn: they are rare, and a short run shall have them too."""
CLOSES = 0.0015
"""Share of steps after which a session is closed, half of them with code under way, and opened again."""
CHECKOUTS = 0.0015
"""Share of steps after which a session of the pool is used for a moment."""

FLAT_BYTES = 6 * 2**20
"""Most that the parent's memory may grow from the third to the fourth quarter of a long run.

An execution that is never forgotten takes at least 400 bytes (its handle, id, code and place in the
record); a quarter of 100,000 of them would take 10 MB. What the allocator takes and gives back
by itself, in a run of this mix, moves the medians by up to 2 MB.
"""
SAMPLES = 100
SLOW = 10.0
"""Seconds that no step takes, even on a busy machine, unless its code answers to no first request."""


@dataclass
class Report:
    """What was done, and what it cost."""

    steps: Counter[str] = field(default_factory=Counter[str])
    executions: int = 0
    recoveries: int = 0
    samples: list[Sample] = field(default_factory=list[Sample])
    slow: list[str] = field(default_factory=list[str])
    """Steps that took long: something was waited for to the end of its grace."""
    before: int = 0
    after: int = 0

    def lines(self) -> Iterator[str]:
        """Tell it."""
        for what, count in sorted(self.steps.items(), key=lambda item: -item[1]):
            yield f"{count:>8,} {what.replace('_', ' ')}"
        yield f"{self.executions:>8,} executions, {self.recoveries:,} recoveries"
        yield from (f"slow: {step}" for step in self.slow)
        yield f"parent: {_mb(self.before)} before, {_mb(self.after)} after all sessions were closed"
        if len(self.samples) >= 4:
            half = self.samples[len(self.samples) // 2 :]
            least, most = (pick(sample.resident for sample in half) for pick in (min, max))
            yield (
                f"parent in the second half: between {_mb(least)} and {_mb(most)}, "
                f"{growth(self.samples) / 2**20:+.2f} MiB from its third to its fourth quarter"
            )


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


class Soak:
    """One run."""

    def __init__(
        self, seed: int, sessions: int, executions: int, store: str | None, tell: Callable[[str], None]
    ) -> None:
        """Say what to do; `tell` hears of the progress."""
        self._seed = seed
        self._sessions = sessions
        self._budget = executions
        self._store = store
        self._tell = tell
        # Each takes a full collection: a short run would do nothing else.
        self._every = max(200, executions // SAMPLES)
        self._next_sample = self._every
        self.report = Report()
        self._config = pyrepl3.WorkerConfig(cancel_grace=30.0, kill_grace=30.0, close_grace=5.0)

    async def run(self, folder: str) -> Report:
        """Do it; `folder` is the TMPDIR of us and all we start.

        Raises:
            MismatchError: something came out otherwise than it must, grew, or was left behind.
        """
        # What the first session of a process leaves for good (imports, the loop's own fds) is no leak.
        async with pyrepl3.open_session(store=self._store, config=self._config) as session:
            await session.execute("1")
        before, objects = ResourceSnapshot.now(folder), library_objects()
        self.report.before = settled_bytes()
        await self._serve_all()
        self._tell("all sessions are closed; looking at what is left")
        left = await left_behind(before, folder)
        self.report.after = settled_bytes()
        more = library_objects() - objects
        left += [f"{count} objects of type {name}" for name, count in more.items()]
        if left:
            raise MismatchError("left behind:\n  " + "\n  ".join(sorted(left)))
        return self.report

    async def _serve_all(self) -> None:
        async with (
            pyrepl3.WorkerPool(2, self._config, max_sessions=self._sessions) as pool,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._sessions):
                group.create_task(self._serve(number, pool), name=f"hand {number}")

    def _submitted(self, count: int) -> None:
        self._budget -= count
        report = self.report
        report.executions += count
        if report.executions >= self._next_sample:
            self._next_sample += self._every
            report.samples.append(Sample(report.executions, settled_bytes()))
            if len(report.samples) % (SAMPLES // 10) == 0:
                self._tell(
                    f"{report.executions:>8,} executions, {report.recoveries:,} recoveries, "
                    f"parent at {_mb(report.samples[-1].resident)}"
                )

    async def _serve(self, number: int, pool: pyrepl3.WorkerPool) -> None:
        """Run steps in one session until the budget is spent; open it again when it was closed."""
        name = f"soak-{self._seed}-{number}"
        hand = Hand(name, random.Random(f"{self._seed}/{number}"), self._submitted)
        fresh = True
        while self._budget > 0:
            running: pyrepl3.Execution | None = None
            async with pyrepl3.open_session(
                name,
                store=self._store,
                config=self._config,
                capabilities=hand.capabilities,
                on_input=hand.answer,
                max_attempts=2,
            ) as hand.session:
                if fresh or self._store is None:
                    hand.total = 0
                    await hand.value("total = 0", 0)
                else:
                    await hand.intact()
                hand.deaths = len(hand.session.recoveries)
                if fresh:
                    await self._take(ENDS[number % len(ENDS)], hand)
                    await self._check_out(hand, pool)
                else:
                    await self._run_steps(hand, pool)
                fresh = False
                self.report.recoveries += len(hand.session.recoveries)
                if self._store is None and hand.chance.random() < 0.5:
                    running = hand.start(disruptions.hanging_cell(hand))
                    await hand.going(running)
            self.report.steps["closed"] += 1
            if running is not None:
                await _closed_on(running)

    async def _run_steps(self, hand: Hand, pool: pyrepl3.WorkerPool) -> None:
        kinds, weights = list(MIX), list(MIX.values())
        while self._budget > 0:
            (step,) = hand.chance.choices(kinds, weights)
            await self._take(step, hand)
            dice = hand.chance.random()
            if dice < CLOSES:
                return
            if dice < CLOSES + CHECKOUTS:
                await self._check_out(hand, pool)

    async def _take(self, step: Step, hand: Hand) -> None:
        self.report.steps[step.__name__] += 1
        started = asyncio.get_running_loop().time()
        try:
            await step(hand)
        except Exception as error:
            error.add_note(f"in step {step.__name__!r} of session {hand.name} (step {hand.steps})")
            raise
        seconds = asyncio.get_running_loop().time() - started
        if seconds > SLOW:
            back = [
                f"{each.seconds:.1f} s for {len(each.replayed)} cells"
                for each in hand.session.recoveries[-2:]
            ]
            self.report.slow.append(
                f"{step.__name__} of {hand.name}: {seconds:.1f} s, {hand.last!r}, last recoveries {back}"
            )
            self._tell(f"slow: {self.report.slow[-1]}")

    async def _check_out(self, hand: Hand, pool: pyrepl3.WorkerPool) -> None:
        self.report.steps["checked out of the pool"] += 1
        self._submitted(2)
        async with pool.open_session(capabilities=hand.capabilities) as session:
            number = hand.next()
            check((await session.execute(f"n = add({number}, 1)")).value, number + 1, "a session of the pool")
            check((await session.execute("n")).value, number + 1, "a session of the pool")


async def _closed_on(execution: pyrepl3.Execution) -> None:
    try:
        result = await execution.result()
    except pyrepl3.SessionClosed:
        return
    raise MismatchError(f"what ran when its session was closed gave {result}")


@contextmanager
def own_folder() -> Generator[str]:
    """Yield a TMPDIR of our own, by which all that we start can be told; it must be empty at the end."""
    inherited = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="pyrepl3-soak-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = None
            if inherited is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = inherited


async def soak(
    seed: int,
    sessions: int,
    executions: int,
    store: str | None = None,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run sessions until so many executions are done.

    Raises:
        MismatchError: something came out otherwise than it must, was left, or grew; the text says what.
    """
    with own_folder() as folder:
        one = Soak(seed, sessions, executions, store, tell)
        try:
            report = await one.run(folder)
        except ExceptionGroup as errors:
            errors.add_note(f"after {one.report.executions:,} executions")
            raise
    if executions >= 50_000 and growth(report.samples) > FLAT_BYTES:
        raise MismatchError("the parent's memory grew in the second half:\n" + "\n".join(report.lines()))
    return report
