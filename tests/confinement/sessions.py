"""What the suites share."""

from typing import Any

import anyio

import pyrepl3_client as pyrepl3

PATIENCE = 20.0
"""Seconds for what takes milliseconds."""
FORGE = """
import os, stat, fcntl
frames = {frames}
for name in os.listdir('/proc/self/fd'):
    fd = int(name)
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        if fd > 2 and stat.S_ISFIFO(os.fstat(fd).st_mode) and mode == os.O_WRONLY:
            for frame in frames:
                os.write(fd, frame)
    except OSError: pass
"""
"""Writes bytes to every pipe that the code can find, the protocol's among them."""


def strict(**options: Any) -> pyrepl3.WorkerConfig:
    """Return a strict configuration whose graces are over soon."""
    options.setdefault("confinement", "strict")
    return pyrepl3.WorkerConfig(cancel_grace=0.5, kill_grace=0.5, close_grace=2.0, **options)


async def run(session: pyrepl3.Session, code: str, **options: Any) -> pyrepl3.ExecutionResult:
    """Run code; give its outcome, a failure too."""
    with anyio.fail_after(PATIENCE):
        return await session.execute(code, check=False, **options)


async def value(session: pyrepl3.Session, code: str) -> Any:
    """Run code that must succeed; give its value."""
    with anyio.fail_after(PATIENCE):
        return (await session.execute(code)).value


async def works(session: pyrepl3.Session) -> bool:
    """Return whether a session does what sessions do."""
    assert await value(session, "1 + 1") == 2
    failed = await run(session, "raise ValueError('on purpose')")
    assert failed.error is not None
    assert failed.error.message == "on purpose"
    return (await run(session, "print('on')")).stdout == "on\n"
