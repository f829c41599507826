"""One small cell after the other: each is awaited before the next is sent."""

import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Peer, Sampler, Subject, verify
from benchmarks.peers import monty
from benchmarks.peers.echo import open_echo
from benchmarks.peers.execnet import open_gateway
from benchmarks.peers.ipykernel import open_kernel
from benchmarks.scale import Scale


def mean_of(count: int, once: Callable[[], Awaitable[object]]) -> Sampler:
    """Return a sampler for the mean seconds of `count` runs in a row."""

    async def sample() -> float:
        began = time.perf_counter()
        for _ in range(count):
            await once()
        return (time.perf_counter() - began) / count

    return sample


@asynccontextmanager
async def _ours(scale: Scale) -> AsyncGenerator[Sampler]:
    async with pyrepl3.open_session() as session:
        verify((await session.execute("1+1")).value, 2)
        yield mean_of(scale.trips, lambda: session.execute("1+1"))


@asynccontextmanager
async def _echo(scale: Scale) -> AsyncGenerator[Sampler]:
    async with open_echo() as echo:
        yield mean_of(scale.trips, echo.round_trip)


@asynccontextmanager
async def _execnet(scale: Scale) -> AsyncGenerator[Sampler]:
    with open_gateway() as gateway:
        verify(gateway.execute("value = 1+1"), 2)

        async def sample() -> float:
            began = time.perf_counter()
            for _ in range(scale.trips):
                gateway.execute("value = 1+1")
            return (time.perf_counter() - began) / scale.trips

        yield sample


@asynccontextmanager
async def _monty(scale: Scale) -> AsyncGenerator[Sampler]:
    async with monty.open_pool() as pool, pool.checkout(limits=monty.LIMITS) as session:
        verify(await session.feed_run("1+1"), 2)
        yield mean_of(scale.trips, lambda: session.feed_run("1+1"))


@asynccontextmanager
async def _ipykernel(scale: Scale) -> AsyncGenerator[Sampler]:
    async with open_kernel() as kernel:
        yield mean_of(max(5, scale.trips // 10), lambda: kernel.execute("1+1"))


@asynccontextmanager
async def _ours_new(scale: Scale) -> AsyncGenerator[Sampler]:
    numbers = itertools.count()
    async with pyrepl3.open_session() as session:
        yield mean_of(scale.trips, lambda: session.execute(f"{next(numbers)}+1"))


@asynccontextmanager
async def _execnet_new(scale: Scale) -> AsyncGenerator[Sampler]:
    numbers = itertools.count()
    with open_gateway() as gateway:

        async def sample() -> float:
            began = time.perf_counter()
            for _ in range(scale.trips):
                gateway.execute(f"value = {next(numbers)}+1")
            return (time.perf_counter() - began) / scale.trips

        yield sample


@asynccontextmanager
async def _monty_new(scale: Scale) -> AsyncGenerator[Sampler]:
    numbers = itertools.count()
    async with monty.open_pool() as pool, pool.checkout(limits=monty.LIMITS) as session:
        yield mean_of(scale.trips, lambda: session.feed_run(f"{next(numbers)}+1"))


SUBJECTS = (
    Subject(
        "round-trip",
        "round trip of 1+1",
        "s",
        lambda scale: scale.rounds,
        _ours,
        (
            Peer("asyncio echo", _echo, Goal(better=1 / 1.25)),
            Peer("pydantic-monty", _monty, Goal(better=1.7)),
            Peer("execnet", _execnet),
            Peer("ipykernel", _ipykernel, Goal(better=25)),
        ),
    ),
    # Beside the first, which finds its compiled code in the cache: what a cell costs that is new.
    Subject(
        "round-trip-new",
        "round trip, no cell twice",
        "s",
        lambda scale: scale.rounds,
        _ours_new,
        (Peer("pydantic-monty", _monty_new), Peer("execnet", _execnet_new)),
    ),
)
