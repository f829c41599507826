"""Durable executions one after the other, where many are on record already."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Opener, Peer, Sampler, Subject, verify
from benchmarks.scale import Scale
from benchmarks.stores import Kind, open_store

type Count = Callable[[Scale], int]

QUIET = 0.1
"""Seconds after a burst, in which a contender finishes its work, so that it falls into no other's
turn: our own session takes its automatic checkpoint when it has been idle for 20 ms."""
_AT_ONCE = 200
"""Executions in flight while a record is being filled."""


def few(scale: Scale) -> int:
    """Return the number of executions in a short history."""
    return scale.few


def some(scale: Scale) -> int:
    """Return the number of executions in a longer one."""
    return scale.some


def many(scale: Scale) -> int:
    """Return the number of executions in a long one."""
    return scale.many


def in_bursts(scale: Scale, once: Callable[[], Awaitable[object]]) -> Sampler:
    """Return a sampler for the seconds of each of several runs in a row."""

    async def sample() -> list[float]:
        seconds: list[float] = []
        for _ in range(scale.burst):
            began = time.perf_counter()
            await once()
            seconds.append(time.perf_counter() - began)
        await asyncio.sleep(QUIET)
        return seconds

    return sample


async def fill(session: pyrepl3.Session, count: int) -> None:
    """Have so many executions on record: real ones, many in flight at a time."""
    for batch in itertools.batched(range(count), _AT_ONCE):
        executions = [session.start(f"{number}+1", execution_id=f"earlier-{number}") for number in batch]
        for number, execution in zip(batch, executions, strict=True):
            verify((await execution.result()).value, number + 1)


def _ours(kind: Kind, recorded: Count) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        with open_store(kind) as store:
            async with pyrepl3.open_session("measured", store=store) as session:
                await fill(session, recorded(scale))
                numbers = itertools.count()

                async def once() -> None:
                    result = await session.execute("1+1", execution_id=f"timed-{next(numbers)}")
                    verify((result.value, result.replayed), (2, False))

                yield in_bursts(scale, once)

    return opened


def _local(recorded: Count) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        # Resonate takes a moment to import, which those who measure something else need not wait for.
        from benchmarks.peers.local_connection import open_local  # noqa: PLC0415 - see above

        async with open_local() as resonate:
            for number in range(recorded(scale)):
                verify(await resonate.execute(f"earlier-{number}", number), number)
            numbers = itertools.count()

            async def once() -> None:
                verify(await resonate.execute(f"timed-{next(numbers)}", 2), 2)

            yield in_bursts(scale, once)

    return opened


def _subject(name: str, where: str, kind: Kind, goal: Goal | None, peers: tuple[Peer, ...]) -> Subject:
    return Subject(
        name,
        f"durable execution of 1+1 {where}, {{scale.many:,}} on record",
        "s",
        lambda scale: scale.bursts,
        _ours(kind, many),
        (
            Peer("itself, {scale.few:,} on record", _ours(kind, few), Goal(better=1 / 1.2)),
            Peer("itself, {scale.some:,} on record", _ours(kind, some)),
            *peers,
        ),
        goal,
    )


SUBJECTS = (
    _subject(
        "durable-sqlite",
        "in SQLite",
        "SQLite",
        Goal(at_most=0.0025),
        (
            Peer("LocalConnection, {scale.few:,} on record", _local(few)),
            Peer("LocalConnection, {scale.some:,} on record", _local(some)),
            # Not as many as ours: it looks at all promises each time.
            Peer("LocalConnection, {scale.local:,} on record", _local(lambda scale: scale.local)),
        ),
    ),
    _subject("durable-memory", "in memory:", "memory:", Goal(at_most=0.0025), ()),
    _subject("durable-plain", "in plain memory", "plain memory", None, ()),
)
