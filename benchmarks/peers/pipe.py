"""A bare child that writes on demand: what moving bytes through a pipe into text costs alone."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.peers.echo import pipes_of

_CHILD = """
import os, sys
chunk = memoryview(b"x" * 65535 + b"\\n")
while os.read(0, 1):
    for _ in range(int(sys.argv[1])):
        rest = chunk
        while rest:
            rest = rest[os.write(1, rest):]
"""
CHUNK = 65536


class Pipe:
    """A child that writes `chunks` times 64 KiB whenever it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: int) -> None:
        """Use this process's ends of both pipes."""
        self._reader = reader
        self._writer = writer
        self._size = chunks * CHUNK

    async def read(self) -> str:
        """Ask once; give all of the text."""
        self._writer.write(b".")
        parts: list[bytes] = []
        missing = self._size
        while missing:
            data = await self._reader.read(1 << 20)
            if not data:
                raise EOFError(f"the child ended {missing} bytes too early")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts).decode()


@asynccontextmanager
async def open_pipe(chunks: int) -> AsyncGenerator[Pipe]:
    """Start the child; end it on the way out."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, str(chunks), stdin=PIPE, stdout=PIPE
    )
    reader, writer = pipes_of(process)
    try:
        yield Pipe(reader, writer, chunks)
    finally:
        writer.close()
        await process.wait()
