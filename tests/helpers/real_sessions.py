"""What the suites share: short graces, and small questions about outcomes and processes."""

from collections.abc import Callable
from typing import Any

import anyio

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.messages import CancelReason, Output

CELL = "<cell "
PATIENCE = 30.0
"""Seconds for what takes milliseconds."""


def quick(**limits: Any) -> pyrepl3.WorkerConfig:
    """Return a configuration with graces so short that no test waits; `limits` are the executor's."""
    return pyrepl3.WorkerConfig(
        cancel_grace=0.4, kill_grace=0.4, close_grace=1.0, executor=ExecutorConfig(**limits)
    )


def when_back(handler: Callable[[pyrepl3.Recovery], object]) -> Callable[[pyrepl3.Recovery], None]:
    """Return an `on_recovery` that calls a handler when the session is back: a slow recovery tells more."""

    def on_recovery(report: pyrepl3.Recovery) -> None:
        if report.progress is None:
            handler(report)

    return on_recovery


async def run(session: pyrepl3.Session, code: str, **options: Any) -> pyrepl3.ExecutionResult:
    """Run code; give its outcome, a failure too. A hang is cancelled, so that it fails its own test alone."""
    with anyio.fail_after(PATIENCE):
        return await session.execute(code, check=False, **options)


async def outcome(execution: pyrepl3.Execution) -> pyrepl3.ExecutionResult:
    """Wait for an execution; give its outcome, a failure too."""
    try:
        return await execution.result()
    except pyrepl3.ExecutionFailed as failure:
        return failure.result


async def stop(execution: pyrepl3.Execution, reason: CancelReason = "cancelled") -> pyrepl3.ExecutionResult:
    """Cancel an execution; give its outcome."""
    with anyio.fail_after(PATIENCE):
        await execution.cancel(reason)
        return await outcome(execution)


async def value(session: pyrepl3.Session, code: str) -> Any:
    """Run code that must succeed; give its value."""
    with anyio.fail_after(PATIENCE):
        return (await session.execute(code)).value


async def seen(execution: pyrepl3.Execution, text: str = "ready\n") -> str:
    """Read an execution's events until its output holds `text`; give all of it."""
    output = ""
    with anyio.fail_after(PATIENCE):
        async for event in execution:
            if isinstance(event, Output):
                output += event.data
                if text in output:
                    return output
    raise AssertionError(f"the execution ended, and its output was {output!r}")


async def running(session: pyrepl3.Session, execution: pyrepl3.Execution) -> None:
    """Wait until a session's code is at work on this execution."""
    with anyio.fail_after(PATIENCE):
        while (await session.ping()).current_execution != execution.execution_id:
            pass


_AWAITS = """
class Soon:
    def __await__(self):
        yield
        return 'awaited'
await Soon()
"""


async def works(session: pyrepl3.Session, *, mute: bool = False) -> bool:
    """Whether a session does what sessions do: values, awaits, errors, and (unless `mute`) output.

    The code imports nothing and calls no builtin function but `print`: those may be broken.
    """
    assert await value(session, "1 + 1") == 2
    assert await value(session, _AWAITS) == "awaited"
    failed = await run(session, "raise ValueError('on purpose')")
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "on purpose")
    if not mute:
        assert (await run(session, "print('on')")).stdout == "on\n"
    return True


def cleanly_stopped(result: pyrepl3.ExecutionResult) -> bool:
    """Return whether an execution ended by being cancelled or interrupted."""
    return result.error is not None and result.error.kind == "cancelled"


def type_of(result: pyrepl3.ExecutionResult) -> str:
    """The type of the exception an execution ended with, or nothing."""
    return "" if result.error is None else result.error.type


def cell_lines(result: pyrepl3.ExecutionResult) -> list[int]:
    """The lines of an error's frames that lie in cells, outermost first."""
    assert result.error is not None
    return [frame.lineno for frame in result.error.frames if frame.filename.startswith(CELL)]


def lives(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:
        return False
