"""Questions about processes, for every suite."""

import os

import anyio


async def ended(pid: int, seconds: float = 20.0) -> bool:
    """Return whether a process ends within a time (a zombie has ended)."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        # No process has the number; or a thread of another one has it (EINVAL, from Linux 6.15 on ENOENT).
        return True
    try:
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(fd)
            return True
        return False
    finally:
        os.close(fd)
