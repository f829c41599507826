"""Questions about processes, for every suite."""

import os

import anyio


async def ended(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends within a time (a zombie has ended)."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        # Nobody has the number, or by now a thread of somebody else's (EINVAL, or ENOENT from Linux 6.15 on).
        return True
    try:
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(fd)
            return True
        return False
    finally:
        os.close(fd)
