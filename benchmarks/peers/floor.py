"""What Python costs before anybody has written a line: `import asyncio, msgspec`."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.peers.echo import pipes_of

IMPORTS = "import asyncio, msgspec"


async def run_and_exit() -> None:
    """Run the command `python -c "import asyncio, msgspec"` from start to exit."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", IMPORTS)
    if await process.wait() != 0:
        raise RuntimeError(f"{IMPORTS!r} failed in a child")


@asynccontextmanager
async def open_floor() -> AsyncGenerator[int]:
    """Start a child that has imported just that and waits; give its pid once it does."""
    code = f"{IMPORTS}, os, sys; os.write(1, b'.'); sys.stdin.read()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    reader, writer = pipes_of(process)
    try:
        await reader.readexactly(1)
        yield process.pid
    finally:
        writer.close()
        await process.wait()
