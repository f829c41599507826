"""From a worker's SIGKILL until its session answers again, in another worker.

Each sample has a session of its own: what is timed is a first death, whose next worker is spawned as any
first one is. The namespace has been saved by then, as it is whenever a session has been idle for a moment.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Opener, Peer, Sampler, Subject, verify
from benchmarks.scale import Scale
from benchmarks.stores import Kind, open_store


class Gate:
    """A host function that a cell waits in until its worker has been killed."""

    def __init__(self) -> None:
        """Start closed."""
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> int:
        """Wait until the gate is opened. This is the host function."""
        self.reached.set()
        await self.opened.wait()
        return 7


type Measure = Callable[[pyrepl3.Session, Gate], Awaitable[float]]
"""Kills the worker of a session that holds `cells`; gives the seconds until the session has answered."""


async def _next_answer(session: pyrepl3.Session, gate: Gate) -> float:
    began = time.perf_counter()
    os.kill(session.worker.pid, signal.SIGKILL)
    result = await session.execute("len(cells)")
    seconds = time.perf_counter() - began
    verify((result.value, len(session.recoveries)), (1, 1))
    return seconds


async def _outcome(session: pyrepl3.Session, gate: Gate) -> float:
    execution = session.start("await wait() + len(cells)")
    await gate.reached.wait()
    began = time.perf_counter()
    os.kill(session.worker.pid, signal.SIGKILL)
    gate.opened.set()
    result = await execution.result()
    seconds = time.perf_counter() - began
    verify((result.value, result.attempts, len(session.recoveries)), (8, 2, 1))
    return seconds


def _ours(measured: Measure, kind: Kind, index: int) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        async def sample() -> float:
            gate = Gate()
            with open_store(kind) as store:
                async with pyrepl3.open_session(store=store, capabilities={"wait": gate.wait}) as session:
                    await session.execute("cells = {0: 0}")
                    earlier = [session.start(f"cells[0] = {n}") for n in range(scale.earlier[index] - 1)]
                    for execution in earlier:
                        await execution.result()
                    await session.checkpoint()
                    return await measured(session, gate)

        yield sample

    return opened


@asynccontextmanager
async def _spawn(_: Scale) -> AsyncGenerator[Sampler]:
    async def sample() -> float:
        began = time.perf_counter()
        async with pyrepl3.open_session() as session:
            verify((await session.execute("1+1")).value, 2)
            return time.perf_counter() - began

    yield sample


def _subject(name: str, title: str, measured: Measure) -> Subject:
    return Subject(
        name,
        f"{title}, {{scale.earlier[2]:,}} earlier cells in SQLite",
        "s",
        # Half as many as of starts: each fills a session anew.
        lambda scale: scale.spawns // 2 + 1,
        _ours(measured, "SQLite", 2),
        (
            Peer("a new session and its first answer", _spawn, Goal(within=0.05)),
            Peer(
                "itself, {scale.earlier[0]:,} earlier cells",
                _ours(measured, "SQLite", 0),
                Goal(better=1 / 1.2),
            ),
            Peer("itself, {scale.earlier[1]:,} earlier cells", _ours(measured, "SQLite", 1)),
            Peer("itself, in plain memory", _ours(measured, "plain memory", 2)),
        ),
    )


SUBJECTS = (
    _subject("recovery-idle", "from SIGKILL to the next answer", _next_answer),
    _subject("recovery-running", "from SIGKILL in a cell to its outcome", _outcome),
)
