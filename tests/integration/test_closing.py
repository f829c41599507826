"""Closing and restarting a session while code runs: the code is stopped, and has time to clean up."""

from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import PATIENCE, quick, seen

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

CLEANING = {
    "awaiting": (
        "import asyncio\ntry:\n    print('ready')\n    await asyncio.sleep(600)\n"
        "finally:\n    await asyncio.sleep(0.05)\n    open({path!r}, 'w').write('cleaned')"
    ),
    "blocking": (
        "import time\ntry:\n    print('ready')\n    time.sleep(600)\n"
        "finally:\n    time.sleep(0.05)\n    open({path!r}, 'w').write('cleaned')"
    ),
    "busy": (
        "try:\n    print('ready')\n    while True: abs(0)\n"
        "finally:\n    [abs(0) for _ in range(100_000)]\n    open({path!r}, 'w').write('cleaned')"
    ),
    "with a task": (
        "import asyncio\nasync def clean():\n    try:\n        await asyncio.sleep(600)\n    finally:\n"
        "        open({path!r}, 'w').write('cleaned')\n"
        "try:\n    print('ready')\n    await asyncio.sleep(600)\n"
        "finally:\n    task = asyncio.create_task(clean())\n    await asyncio.sleep(0.01)"
    ),
}


@pytest.mark.parametrize("ending", ["close", "restart"])
@pytest.mark.parametrize("state", CLEANING)
async def test_what_runs_cleans_up_first(state: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / "written"
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        execution = session.start(CLEANING[state].format(path=str(path)))
        await seen(execution)
        if ending == "restart":
            with anyio.fail_after(PATIENCE):
                await session.restart()
            assert path.read_text() == "cleaned"
    assert path.read_text() == "cleaned"


STUBBORN = {
    "awaiting": (
        "import asyncio\nprint('ready')\nwhile True:\n    try:\n        await asyncio.sleep(600)\n"
        "    except BaseException: pass"
    ),
    "blocking": "import socket\nprint('ready')\npair = socket.socketpair()\npair[0].recv(1)",
}


@pytest.mark.parametrize("state", STUBBORN)
async def test_what_does_not_end_does_not_keep_exit_handlers_away(state: str, tmp_path: Path) -> None:
    """The wait is bounded, and leaves them some of the time."""
    path = tmp_path / "written"
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        await session.execute(
            f"import atexit\natexit.register(lambda: open({str(path)!r}, 'w').write('left')) and None"
        )
        await seen(session.start(STUBBORN[state]))
    assert path.read_text() == "left"
