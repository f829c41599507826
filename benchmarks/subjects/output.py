"""Cells that print a great deal. A sample ends when the last character has arrived and was counted."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Opener, Peer, Sampler, Subject, verify
from benchmarks.peers import monty
from benchmarks.peers.execnet import open_gateway
from benchmarks.peers.ipykernel import open_kernel
from benchmarks.peers.pipe import CHUNK, open_pipe
from benchmarks.scale import Scale

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Text:
    """A cell that prints, and how many characters it comes to."""

    code: str
    characters: int


def _lines(scale: Scale) -> Text:
    characters = sum(len(f"line {i}\n") for i in range(scale.lines))
    return Text(f"for i in range({scale.lines}):\n    print('line', i)", characters)


def _printed(scale: Scale) -> Text:
    code = f"chunk = 'x' * 65535 + '\\n'\nfor _ in range({scale.megabytes * 16}):\n    print(chunk, end='')"
    return Text(code, scale.megabytes * MIB)


def _written(scale: Scale) -> Text:
    code = (
        "import os\n"
        "chunk = b'x' * 65535 + b'\\n'\n"
        f"for _ in range({scale.megabytes * 16}):\n"
        "    rest = memoryview(chunk)\n"
        "    while rest:\n"
        "        rest = rest[os.write(1, rest):]"
    )
    return Text(code, scale.megabytes * MIB)


def _of_a_child(scale: Scale) -> Text:
    size = scale.megabytes * MIB
    command = f"yes pyrepl3 | head -c {size}"
    return Text(f"import subprocess\nsubprocess.run({command!r}, shell=True, check=True)", size)


def _ours(text_of: Callable[[Scale], Text]) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        text = text_of(scale)
        async with pyrepl3.open_session() as session:

            async def sample() -> float:
                began = time.perf_counter()
                result = await session.execute(text.code)
                seconds = time.perf_counter() - began
                verify(len(result.stdout), text.characters)
                return seconds

            yield sample

    return opened


def _ipykernel(text_of: Callable[[Scale], Text]) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        text = text_of(scale)
        async with open_kernel() as kernel:

            async def sample() -> float:
                began = time.perf_counter()
                cell = await kernel.execute(text.code)
                seconds = time.perf_counter() - began
                verify(cell.characters, text.characters)
                return seconds

            yield sample

    return opened


def _monty(text_of: Callable[[Scale], Text]) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        text = text_of(scale)
        async with monty.open_pool() as pool, pool.checkout(limits=monty.LIMITS) as session:

            async def sample() -> float:
                collected = monty.collector()
                began = time.perf_counter()
                await session.feed_run(text.code, print_callback=collected)
                seconds = time.perf_counter() - began
                verify(len(collected.output), text.characters)
                return seconds

            yield sample

    return opened


@asynccontextmanager
async def _execnet_lines(scale: Scale) -> AsyncGenerator[Sampler]:
    code = f"for i in range({scale.lines}):\n    send(f'line {{i}}\\n')"
    with open_gateway() as gateway:

        async def sample() -> float:
            began = time.perf_counter()
            characters = gateway.lines(code, scale.lines)
            seconds = time.perf_counter() - began
            verify(characters, _lines(scale).characters)
            return seconds

        yield sample


@asynccontextmanager
async def _bare_pipe(scale: Scale) -> AsyncGenerator[Sampler]:
    chunks = scale.megabytes * MIB // CHUNK
    async with open_pipe(chunks) as pipe:

        async def sample() -> float:
            began = time.perf_counter()
            text = await pipe.read()
            seconds = time.perf_counter() - began
            verify(len(text), chunks * CHUNK)
            return seconds

        yield sample


SUBJECTS = (
    Subject(
        "lines",
        "many printed lines",
        "s",
        lambda scale: scale.streams,
        _ours(_lines),
        (
            Peer("ipykernel", _ipykernel(_lines), Goal(better=10)),
            Peer("execnet", _execnet_lines),
            Peer("pydantic-monty", _monty(_lines)),
        ),
    ),
    Subject(
        "bulk-print",
        "bulk output by print",
        "s",
        lambda scale: scale.streams,
        _ours(_printed),
        (
            Peer("ipykernel", _ipykernel(_printed), Goal(better=8)),
            Peer("pydantic-monty", _monty(_printed)),
            Peer("a bare pipe", _bare_pipe),
        ),
    ),
    Subject(
        "bulk-write",
        "bulk output by os.write(1)",
        "s",
        lambda scale: scale.streams,
        _ours(_written),
        (Peer("ipykernel", _ipykernel(_written), Goal(better=8)),),
    ),
    Subject(
        "bulk-child",
        "bulk output of a child process",
        "s",
        lambda scale: scale.streams,
        _ours(_of_a_child),
        (Peer("ipykernel", _ipykernel(_of_a_child), Goal(better=8)),),
    ),
)
