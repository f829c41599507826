"""Code that tries to hold up the program: all of its calls end all the same, and another session answers."""

import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ResourceLimits, SandboxPolicy
from tests.confinement.sessions import strict_config
from tests.confinement.stalls import PRELUDE, STALLS, Stall
from tests.helpers.processes import ended

pytestmark = pytest.mark.anyio

WATCHDOG_SECONDS = 40.0
"""Far more than the bounds of these calls, which are some seconds."""
CASES = [
    pytest.param(stall, level, id=f"{stall.name}-{level}", marks=() if is_quick else pytest.mark.long)
    for stall in STALLS
    for level in stall.levels
    for is_quick in (stall.quick and level == "strict",)
]


async def never() -> None:
    await anyio.sleep_forever()


@pytest.fixture(scope="module")
async def beside() -> AsyncIterator[pyrepl3.Session]:
    """The session that answers meanwhile."""
    async with pyrepl3.open_session(config=strict_config()) as session:
        yield session


def config_of(level: str) -> pyrepl3.WorkerConfig:
    config = pyrepl3.WorkerConfig(
        confinement=level,  # pyright: ignore[reportArgumentType] - one of them
        cancel_grace=0.2,
        kill_grace=0.2,
        close_grace=0.3,
        stall_timeout=1.0,
    )
    if level != "strict":
        return config
    limits = ResourceLimits(
        max_processes=60, max_open_files=256, max_memory_bytes=1_000_000_000, max_cpu_seconds=120
    )
    return dataclasses.replace(config, limits=limits, sandbox=SandboxPolicy(work_bytes=4_000_000))


def test_there_are_enough_ways() -> None:
    assert len({stall.name for stall in STALLS}) == len(STALLS) >= 30


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("stall", "level"), CASES)
async def test_every_call_ends(stall: Stall, level: str, beside: pyrepl3.Session, work: Path) -> None:
    folder = "/tmp" if level == "strict" else str(work)
    code = f"{PRELUDE}\nW = {folder!r}\n{stall.code}"

    async def within_bounds(call: Callable[[], Awaitable[object]]) -> None:
        """Have a call end, in whatever way, while the other session answers."""

        async def run_call() -> None:
            with suppress(pyrepl3.PyRepl3Error):
                await call()

        with anyio.fail_after(WATCHDOG_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(run_call)
                for number in range(3):
                    assert (await beside.execute(f"{number} + 1")).value == number + 1

    async def opened() -> pyrepl3.Session:
        capabilities = {"never": never}
        return await pyrepl3.open_session(
            config=config_of(level), recovery="none", capabilities=capabilities
        ).__aenter__()

    async def started(session: pyrepl3.Session) -> pyrepl3.Execution:
        execution = session.start(code)
        with suppress(pyrepl3.PyRepl3Error):
            async for _ in execution:
                break
        return execution

    # One session each: what the first leaves behind would be all that the second meets.
    session = await opened()
    await within_bounds(lambda: session.execute(code, timeout=0.2))
    pid = session.worker.pid
    await within_bounds(lambda: session.execute("1", timeout=0.2))
    await within_bounds(session.close)
    assert await ended(pid)

    session = await opened()
    pid = session.worker.pid
    with anyio.fail_after(WATCHDOG_SECONDS):
        execution = await started(session)
    await within_bounds(execution.cancel)
    await within_bounds(execution.result)
    await within_bounds(session.close)
    assert await ended(pid)

    session = await opened()
    pid = session.worker.pid
    with anyio.fail_after(WATCHDOG_SECONDS):
        await started(session)
    await within_bounds(session.close)
    assert await ended(pid)
    assert beside.worker.incarnation == 1
    if (work / "left").exists():  # "limits" lets go of a process that has lost its parent
        for line in (work / "left").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGKILL)
