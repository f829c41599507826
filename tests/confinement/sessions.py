"""Sessions and helpers that the confinement tests share."""

from typing import Any

import anyio

import pyrepl3_client as pyrepl3

TIMEOUT_SECONDS = 20.0
"""Far more than any of these operations takes."""
WRITE_FORGED_FRAMES = """
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
"""Code that writes frames to every pipe it can find, the protocol's among them."""


def strict_config(**options: Any) -> pyrepl3.WorkerConfig:
    """Return a configuration of level "strict" with short grace periods."""
    options.setdefault("confinement", "strict")
    return pyrepl3.WorkerConfig(cancel_grace=0.5, kill_grace=0.5, close_grace=2.0, **options)


async def run(session: pyrepl3.Session, code: str, **options: Any) -> pyrepl3.ExecutionResult:
    """Run code; return its result, also if it fails."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        return await session.execute(code, check=False, **options)


async def value(session: pyrepl3.Session, code: str) -> Any:
    """Run code that must succeed; return its value."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        return (await session.execute(code)).value


async def is_working(session: pyrepl3.Session) -> bool:
    """Return whether a session still runs code, reports errors and collects output."""
    assert await value(session, "1 + 1") == 2
    failed = await run(session, "raise ValueError('on purpose')")
    assert failed.error is not None
    assert failed.error.message == "on purpose"
    return (await run(session, "print('on')")).stdout == "on\n"
