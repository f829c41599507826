"""From nothing to a worker that takes code; and from a pool."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Peer, Sampler, Subject
from benchmarks.peers import NoFigureError, load, monty
from benchmarks.peers.execnet import open_gateway
from benchmarks.peers.floor import open_floor, run_and_exit
from benchmarks.peers.ipykernel import open_kernel
from benchmarks.scale import Scale

_UNTIL_LAUNCHER_STANDS_BY = 1.5


@asynccontextmanager
async def _ours(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        began = time.perf_counter()
        async with pyrepl3.open_session():
            return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _strict(_: Scale) -> AsyncGenerator[Sampler]:
    config = pyrepl3.WorkerConfig(confinement="strict")
    # What stands by for the next is started half a second after the first.
    async with pyrepl3.open_session(config=config):
        await asyncio.sleep(_UNTIL_LAUNCHER_STANDS_BY)

    async def sample() -> float:
        began = time.perf_counter()
        async with pyrepl3.open_session(config=config):
            return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _fork(_: Scale) -> AsyncGenerator[Sampler]:
    # What a session costs when no idle worker is left: the pool's only one is taken before, and the next
    # is not started while the sample is taken.
    async def sample() -> float:
        async with pyrepl3.WorkerPool(1, max_sessions=2) as pool, pool.open_session():
            if pool.spawn_reason is not None:
                raise NoFigureError(pool.spawn_reason)
            began = time.perf_counter()
            async with pool.open_session():
                return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _floor(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        began = time.perf_counter()
        await run_and_exit()
        return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _floor_until_imported(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        began = time.perf_counter()
        async with open_floor():
            return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _ipykernel(_: Scale) -> AsyncGenerator[Sampler]:
    load("jupyter_client")

    async def sample() -> float:
        began = time.perf_counter()
        async with open_kernel():
            return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _execnet(_: Scale) -> AsyncGenerator[Sampler]:
    load("execnet")

    async def sample() -> float:
        began = time.perf_counter()
        with open_gateway():
            return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _monty(_: Scale) -> AsyncGenerator[Sampler]:
    load("pydantic_monty")

    async def sample() -> float:
        began = time.perf_counter()
        async with monty.open_pool() as pool, pool.checkout():
            return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _pool(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        # A pool of its own for each sample: its idle worker is ready on entry, and no replacement's start
        # for an earlier sample shares the processor with this one.
        async with pyrepl3.WorkerPool(1) as pool:
            began = time.perf_counter()
            async with pool.open_session():
                return time.perf_counter() - began

    yield sample


@asynccontextmanager
async def _monty_pool(_: Scale) -> AsyncGenerator[Sampler]:
    # Monty takes a returned worker again, so one pool serves all samples, as it would in a program.
    async with monty.open_pool() as pool:

        async def sample() -> float:
            began = time.perf_counter()
            async with pool.checkout():
                return time.perf_counter() - began

        yield sample


SUBJECTS = (
    Subject(
        "spawn",
        "cold start until ready",
        "s",
        lambda scale: scale.spawns,
        _ours,
        (
            Peer("import asyncio, msgspec", _floor, Goal(better=1 / 1.2)),
            Peer("the same, until imported", _floor_until_imported),
            Peer("execnet", _execnet),
            Peer("pydantic-monty", _monty),
            Peer("ipykernel", _ipykernel),
        ),
    ),
    Subject(
        "spawn-strict",
        "start with confinement='strict' until ready",
        "s",
        lambda scale: scale.spawns,
        _strict,
        (Peer("our own cold start ('limits')", _ours, Goal(within=0.020)),),
    ),
    Subject(
        "spawn-fork",
        "start by a fork until ready",
        "s",
        lambda scale: scale.spawns,
        _fork,
        (Peer("our own cold start", _ours), Peer("our own warm pool", _pool)),
    ),
    Subject(
        "warm",
        "session from a warm pool",
        "s",
        lambda scale: scale.spawns,
        _pool,
        (Peer("pydantic-monty", _monty_pool),),
        Goal(at_most=0.002),
    ),
)
