"""Variables set and got, beside a plain copy of as many bytes through a pipe into memory of this process."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Opener, Peer, Sampler, Subject, verify
from benchmarks.peers import load
from benchmarks.scale import Scale

_MB = 1_000_000
_PIPE_BYTES = 1024 * 1024
_COPY = """
import os, sys
data = memoryview(bytes(int(sys.argv[1])))
while os.read(0, 1):
    at = 0
    while at < len(data):
        at += os.write(1, data[at : at + 1048576])
"""
_SIDES = {"set": "one that the session takes", "get": "one that the session gives"}

type Make = Callable[[int], Any]


def _array(size: int) -> Any:
    return load("numpy").ones(size // 8)


def _table(size: int) -> Any:
    return load("pyarrow").table({"a": _array(size)})


def _size(scale: Scale) -> int:
    return 100 * _MB // scale.shrink


def _ours(make: Make, *, gets: bool) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        value = make(_size(scale))
        async with pyrepl3.open_session() as session:
            await session.set(value=value)

            async def sample() -> float:
                began = time.perf_counter()
                if gets:
                    got = await session.get("value", arrow=True)
                else:
                    await session.set(value=value)
                    got = value
                seconds = time.perf_counter() - began
                verify(got.nbytes, value.nbytes)
                return seconds

            yield sample

    return opened


def _start_copier(size: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _COPY, str(size)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)  # noqa: S603 - our own


@asynccontextmanager
async def _pipe_copy(scale: Scale) -> AsyncGenerator[Sampler]:
    size = _size(scale)
    process = _start_copier(size)
    asks, answers = process.stdin, process.stdout
    assert asks is not None
    assert answers is not None
    fcntl.fcntl(answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    async def sample() -> float:
        began = time.perf_counter()
        asks.write(b".")
        whole = memoryview(bytearray(size))
        at = 0
        while at < size:
            at += os.readv(answers.fileno(), [whole[at : at + _PIPE_BYTES]])
        return time.perf_counter() - began

    try:
        yield sample
    finally:
        asks.close()
        answers.close()
        process.wait()


SUBJECTS = tuple(
    Subject(
        f"{side}-{what}",
        f"{words} of 100 MB, {_SIDES[side]}",
        "s",
        lambda scale: 3 * scale.streams,
        _ours(make, gets=side == "get"),
        (Peer("a plain pipe copy", _pipe_copy, Goal(better=1 / 3)),),
    )
    for side in _SIDES
    for what, words, make in (("array", "an array", _array), ("table", "an Arrow table", _table))
)
