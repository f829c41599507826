"""Resident memory of a worker that has run one cell and waits."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Peer, Sampler, Subject
from benchmarks.peers import load, monty
from benchmarks.peers.execnet import open_gateway
from benchmarks.peers.floor import open_floor
from benchmarks.peers.ipykernel import open_kernel
from benchmarks.scale import Scale

MB = 1000 * 1000


def resident(pid: int) -> int:
    """Return a process's resident bytes (VmRSS: shared libraries count in full)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS: it has ended")


@asynccontextmanager
async def _ours(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        async with pyrepl3.open_session() as session:
            await session.execute("1+1")
            return resident(session.worker.pid)

    yield sample


@asynccontextmanager
async def _floor(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        async with open_floor() as pid:
            return resident(pid)

    yield sample


@asynccontextmanager
async def _execnet(_: Scale) -> AsyncGenerator[Sampler]:
    load("execnet")

    async def sample() -> float:
        with open_gateway() as gateway:
            gateway.execute("value = 1+1")
            return resident(gateway.pid)

    yield sample


@asynccontextmanager
async def _monty(_: Scale) -> AsyncGenerator[Sampler]:
    load("pydantic_monty")

    async def sample() -> float:
        async with monty.open_pool() as pool, pool.checkout() as session:
            await session.feed_run("1+1")
            pid = session.worker_pid
            if pid is None:
                raise RuntimeError("monty's worker has ended")
            return resident(pid)

    yield sample


@asynccontextmanager
async def _ipykernel(_: Scale) -> AsyncGenerator[Sampler]:
    load("jupyter_client")

    async def sample() -> float:
        async with open_kernel() as kernel:
            await kernel.execute("1+1")
            return resident(kernel.pid)

    yield sample


SUBJECTS = (
    Subject(
        "memory",
        "resident memory of an idle worker",
        "B",
        lambda scale: max(1, scale.spawns // 3),
        _ours,
        (
            Peer("import asyncio, msgspec", _floor),
            Peer("execnet", _execnet),
            Peer("pydantic-monty", _monty),
            Peer("ipykernel", _ipykernel),
        ),
        Goal(at_most=30 * MB),
    ),
)
