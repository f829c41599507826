"""Waits that go on to their end, however often the waiting task is cancelled meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio


async def wait_and_forward_cancel(
    wait: Callable[[], Awaitable[object]], on_cancel: Callable[[], None]
) -> None:
    """Wait until `wait()` is done; each further cancellation calls `on_cancel` and waits on.

    The caller is being cancelled, and re-raises that afterwards. A cancelled anyio scope would cancel
    again in each turn of the loop, so it is shut out; a single call of `Task.cancel` is not.
    """
    with anyio.CancelScope(shield=True):
        while True:
            try:
                await wait()
            except asyncio.CancelledError:
                on_cancel()
            else:
                return


async def wait_uncancelled(task: asyncio.Task[None]) -> None:
    """Wait for a task that must come to its end. A cancellation is raised again afterwards."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
