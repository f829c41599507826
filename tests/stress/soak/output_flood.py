"""More output than anybody wants, to a reader that is slow: memory stays bounded on both sides."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyrepl3_client as pyrepl3
from tests.stress.soak.resources import resident_bytes, settled_bytes
from tests.stress.soak.steps import MismatchError, check

LINE = "x" * 99 + "\n"
BOUND = 8 * 2**20
"""`max_output_bytes` of the session: what the result keeps."""
EXTRA = 48 * 2**20
"""Most that either side may take beyond what it had, and twice the session's bound.

In the parent: the result's text, once in pieces and once joined; 8 MiB that wait for a reader before
reading stops; buffers; garbage. In the worker: the tail that is kept, a frame, a pipe. None of it depends
on how much is written.
"""
PAUSE = 0.005
"""Seconds that the reader takes for each piece."""

WAYS: dict[str, str] = {
    "print": "for _ in range({lines}): print('x' * 99)",
    "print in blocks": "for _ in range({lines} // 1000): print(('x' * 99 + '\\n') * 1000, end='')",
    "os.write": "import os\nfor _ in range({lines} // 1000): os.write(1, (b'x' * 99 + b'\\n') * 1000)",
    "child process": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', "
        "\"for _ in range({lines} // 1000): print(('x' * 99 + '\\\\n') * 1000, end='')\"], check=True)"
    ),
}
"""Code that writes so many lines, in several ways."""


@dataclass
class Peaks:
    """The most memory that both sides were seen with, beyond what they had before."""

    parent: int = 0
    worker: int = 0

    def __str__(self) -> str:
        return f"parent {self.parent / 2**20:+.1f} MiB, worker {self.worker / 2**20:+.1f} MiB at the peak"


@dataclass(frozen=True)
class Flood:
    """What came of one."""

    way: str
    written: int
    taken: int
    peaks: Peaks

    def __str__(self) -> str:
        return (
            f"{self.written / 1e6:,.0f} MB by {self.way}: {self.taken / 1e6:,.1f} MB taken by a slow reader; "
            f"{self.peaks}"
        )


@asynccontextmanager
async def watched(pid: int, bound: int) -> AsyncGenerator[Peaks]:
    """Sample both sides' memory all the while.

    Raises:
        MismatchError: it went over the bound.
    """
    peaks = Peaks()
    parent, worker = settled_bytes(), resident_bytes(pid)

    async def watch() -> None:
        while True:
            peaks.parent = max(peaks.parent, resident_bytes() - parent)
            peaks.worker = max(peaks.worker, resident_bytes(pid) - worker)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield peaks
    finally:
        task.cancel()
        await asyncio.wait([task])
    most = 2 * bound + EXTRA
    if max(peaks.parent, peaks.worker) > most:
        raise MismatchError(f"memory is not bounded: {peaks}, where {most / 2**20:.0f} MiB are the most")


def _code(way: str, size: int) -> tuple[str, int]:
    lines = size // len(LINE) // 1000 * 1000
    return WAYS[way].format(lines=lines), lines * len(LINE)


async def flood(way: str, size: int, bound: int = BOUND) -> Flood:
    """Have a cell write `size` bytes in one of the `WAYS`, to a slow iteration.

    Raises:
        MismatchError: memory grew beyond measure, or the result is not what it must be.
    """
    code, written = _code(way, size)
    taken = 0
    config = pyrepl3.WorkerConfig(executor=pyrepl3.ExecutorConfig(max_output_bytes=bound))
    async with pyrepl3.open_session(config=config) as session, watched(session.worker.pid, bound) as peaks:
        execution = session.start(code)
        async for event in execution:
            if isinstance(event, pyrepl3.Output):
                taken += len(event.data)
                await asyncio.sleep(PAUSE)
        _check_result(await execution.result(), written, taken, bound)
        check((await session.execute("1 + 1")).value, 2, "the cell after a flood")
    return Flood(way, written, taken, peaks)


async def flood_handler(way: str, size: int, bound: int = BOUND) -> Flood:
    """The same to a slow asynchronous `on_output`.

    Raises:
        MismatchError: as `flood`.
    """
    code, written = _code(way, size)
    taken = 0

    async def take(output: pyrepl3.Output) -> None:
        nonlocal taken
        taken += len(output.data)
        await asyncio.sleep(PAUSE)

    config = pyrepl3.WorkerConfig(executor=pyrepl3.ExecutorConfig(max_output_bytes=bound))
    async with pyrepl3.open_session(config=config) as session, watched(session.worker.pid, bound) as peaks:
        _check_result(await session.execute(code, on_output=take), written, taken, bound)
    return Flood(f"{way}, to on_output", written, taken, peaks)


def _check_result(result: pyrepl3.ExecutionResult, written: int, taken: int, bound: int) -> None:
    text = result.stdout
    check(taken, len(text), "what the reader got, beside what is in the result")
    if written <= bound:
        check((text == LINE * (written // len(LINE)), result.truncated), (True, False), "the whole output")
        return
    check(result.truncated, True, "truncated")
    check((text[:5000], text[-5000:]), (LINE * 50, LINE * 50), "head and tail")
    if not bound // 2 <= len(text) <= bound + 1000:
        raise MismatchError(f"the result keeps {len(text):,} characters, and its bound is {bound:,}")
    (cut,) = [line for line in text.splitlines() if "cut" in line]
    gone = int(cut.split(" bytes")[0].split()[-1].replace(",", ""))
    check(gone + len(text) - len(cut) - 2, written, "what is there and what was cut, together")


async def lead(take: int, *, by_handler: bool) -> int:
    """Return by how many bytes code that writes for ever is ahead of a slow reader who has taken `take`.

    Nothing is cut here, so that it is the reader alone who holds the code back.
    """
    taken = 0
    enough = asyncio.Event()

    async def read(output: pyrepl3.Output) -> None:
        nonlocal taken
        taken += len(output.data)
        if taken >= take:
            enough.set()
        await asyncio.sleep(PAUSE)

    config = pyrepl3.WorkerConfig(executor=pyrepl3.ExecutorConfig(max_output_bytes=None))
    async with pyrepl3.open_session(config=config) as session:
        execution = session.start(
            "n = 0\nwhile True:\n    print('x' * 9_999)\n    n += 1",
            check=False,
            on_output=read if by_handler else None,
        )
        if by_handler:
            await enough.wait()
        else:
            async for event in execution:
                if isinstance(event, pyrepl3.Output):
                    await read(event)
                    if enough.is_set():
                        break
        before = taken
        await execution.cancel()
        written = 10_000 * (await session.execute("n")).value
    return written - before
