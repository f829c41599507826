"""From `cancel()` to the cancelled cell's last message."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Opener, Peer, Sampler, Subject
from benchmarks.peers import NoFigureError
from benchmarks.peers.ipykernel import open_kernel
from benchmarks.scale import Scale
from pyrepl3_schemas.messages import Output

PATIENCE = 5
"""Seconds after which a peer counts as not interrupted."""


async def _settle() -> None:
    # The cell has printed and goes on to its loop or sleep: let it get there, and let the cancel fall
    # at no special moment of the interpreter's switch interval. What is measured begins afterwards.
    await asyncio.sleep(random.uniform(0.005, 0.015))  # noqa: S311 - no secret


def _ours(code: str) -> Opener:
    @asynccontextmanager
    async def opened(_: Scale) -> AsyncGenerator[Sampler]:
        async with pyrepl3.open_session() as session:

            async def sample() -> float:
                execution = session.start(f"print('running')\n{code}")
                async for event in execution:
                    if isinstance(event, Output):
                        break
                await _settle()
                began = time.perf_counter()
                await execution.cancel()
                try:
                    await execution.result()
                except pyrepl3.ExecutionCancelled:
                    return time.perf_counter() - began
                raise RuntimeError(f"{code!r} was not cancelled")

            yield sample

    return opened


def _ipykernel(code: str) -> Opener:
    @asynccontextmanager
    async def opened(_: Scale) -> AsyncGenerator[Sampler]:
        async with open_kernel() as kernel:

            async def sample() -> float:
                # Flushed, or the kernel would keep the line back for its 200 ms.
                cell = kernel.start(f"print('running', flush=True)\n{code}")
                await kernel.printed(cell)
                await _settle()
                began = time.perf_counter()
                await kernel.interrupt()
                try:
                    async with asyncio.timeout(PATIENCE):
                        await kernel.finish(cell)
                except TimeoutError as error:
                    raise NoFigureError(f"still ran {PATIENCE} s after the interrupt") from error
                seconds = time.perf_counter() - began
                if cell.exception not in ("KeyboardInterrupt", "CancelledError"):
                    raise RuntimeError(f"{code!r} was not interrupted: {cell.status} {cell.exception}")
                return seconds

            yield sample

    return opened


def _subject(name: str, title: str, code: str) -> Subject:
    return Subject(
        name,
        title,
        "s",
        lambda scale: scale.cancels,
        _ours(code),
        (Peer("ipykernel", _ipykernel(code)),),
        Goal(at_most=0.001),
    )


SUBJECTS = (
    _subject("cancel-loop", "cancel of while True: pass", "while True: pass"),
    _subject("cancel-sleep", "cancel of time.sleep(60)", "import time; time.sleep(60)"),
    _subject("cancel-await", "cancel of await asyncio.sleep(60)", "import asyncio; await asyncio.sleep(60)"),
)
