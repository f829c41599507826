"""The echo child's other end: asyncio's own streams, and frames of the size of ours."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.messages import Execute

FRAME = bytes(encode(Execute("0123456789abcdef", "1+1")))


def pipes_of(process: asyncio.subprocess.Process) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the parent's ends of a child that was started with pipes for both."""
    if process.stdout is None or process.stdin is None:
        raise ValueError("the child was started without pipes")
    return process.stdout, process.stdin


class Echo:
    """A running echo child."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use this process's ends of both pipes."""
        self._reader = reader
        self._writer = writer

    async def round_trip(self) -> None:
        """Send one frame and wait for it to come back."""
        self._writer.write(FRAME)
        size = int.from_bytes(await self._reader.readexactly(4))
        await self._reader.readexactly(size)

    async def pipeline(self, count: int) -> None:
        """Send `count` frames without waiting, and take back as many."""
        for _ in range(count):
            self._writer.write(FRAME)
        for _ in range(count):
            size = int.from_bytes(await self._reader.readexactly(4))
            await self._reader.readexactly(size)


@asynccontextmanager
async def open_echo() -> AsyncGenerator[Echo]:
    """Start an echo child; end it on the way out."""
    child = Path(__file__).with_name("echo_child.py")
    process = await asyncio.create_subprocess_exec(sys.executable, "-P", str(child), stdin=PIPE, stdout=PIPE)
    reader, writer = pipes_of(process)
    try:
        yield Echo(reader, writer)
    finally:
        writer.close()
        await process.wait()
