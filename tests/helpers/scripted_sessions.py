"""Cells that many tests use, and how to open a session quickly and briefly."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any

import pyrepl3_client as pyrepl3
from pyrepl3_client import testing
from pyrepl3_client.testing import Run, ScriptedWorker

ONE = "1 + 1"
SLEEP = "await sleep(60)"
SWALLOW = "swallow one cancel, then sleep"
STUBBORN = "swallow every cancel"
SHORT = 0.02
"""Seconds of grace in tests of what happens when it is over."""


def brief(**options: Any) -> pyrepl3.WorkerConfig:
    """Return a configuration whose graces are over soon."""
    graces = pyrepl3.WorkerConfig(cancel_grace=SHORT, kill_grace=SHORT, close_grace=SHORT)
    return replace(graces, **options)


def opened(
    worker: ScriptedWorker,
    *,
    session_id: str | None = None,
    config: pyrepl3.WorkerConfig | None = None,
    capabilities: Mapping[str, Any] | None = None,
    on_output: pyrepl3.OutputHandler | None = None,
    on_input: pyrepl3.InputHandler | None = None,
    recovery: pyrepl3.RecoveryPolicy = "none",
) -> AbstractAsyncContextManager[pyrepl3.Session]:
    """Open a session with a scripted worker; one that stays dead, unless the test is about coming back."""
    return testing.open_session(
        worker,
        session_id,
        config=pyrepl3.WorkerConfig() if config is None else config,
        capabilities=capabilities,
        on_output=on_output,
        on_input=on_input,
        recovery=recovery,
    )


def script_basics(worker: ScriptedWorker) -> None:
    """Teach a worker the cells above."""

    @worker.script(ONE)
    async def one(run: Run) -> int:
        return 2

    @worker.script(SLEEP)
    async def sleep(run: Run) -> None:
        run.print("asleep\n")
        await asyncio.Event().wait()

    @worker.script(SWALLOW)
    async def swallow(run: Run) -> None:
        run.print("asleep\n")
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    @worker.script(STUBBORN)
    async def stubborn(run: Run) -> None:
        run.print("asleep\n")
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if worker.process.ended:
                return


async def turns_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds that no event signals."""
    while not condition():  # noqa: ASYNC110 - the test's own timeout bounds it
        await asyncio.sleep(0.001)


async def until_output(execution: pyrepl3.Execution) -> None:
    """Wait for an execution's first output."""
    async for event in execution:
        if isinstance(event, pyrepl3.Output):
            return
    raise AssertionError("it ended without output")
