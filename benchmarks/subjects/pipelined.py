"""Many cells submitted at once, then awaited one by one."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Peer, Sampler, Subject, verify
from benchmarks.peers.echo import open_echo
from benchmarks.peers.execnet import open_gateway
from benchmarks.scale import Scale


@asynccontextmanager
async def _ours(scale: Scale) -> AsyncGenerator[Sampler]:
    async with pyrepl3.open_session() as session:

        async def sample() -> float:
            began = time.perf_counter()
            executions = [session.start("1+1") for _ in range(scale.pipelined)]
            results = [await execution.result() for execution in executions]
            seconds = time.perf_counter() - began
            verify({result.value for result in results}, {2})
            return scale.pipelined / seconds

        yield sample


@asynccontextmanager
async def _echo(scale: Scale) -> AsyncGenerator[Sampler]:
    async with open_echo() as echo:

        async def sample() -> float:
            began = time.perf_counter()
            await echo.pipeline(scale.pipelined)
            return scale.pipelined / (time.perf_counter() - began)

        yield sample


@asynccontextmanager
async def _execnet(scale: Scale) -> AsyncGenerator[Sampler]:
    with open_gateway() as gateway:

        async def sample() -> float:
            began = time.perf_counter()
            gateway.pipeline("value = 1+1", scale.pipelined)
            return scale.pipelined / (time.perf_counter() - began)

        yield sample


SUBJECTS = (
    Subject(
        "pipelined",
        "pipelined executions of 1+1",
        "/s",
        lambda scale: max(scale.streams, 5) if scale.streams > 1 else 1,
        _ours,
        (Peer("asyncio echo", _echo), Peer("execnet", _execnet)),
        Goal(at_least=40_000),
    ),
)
