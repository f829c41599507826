"""A session that has another owner: who comes second is told whose it is, or waits for as long as it likes."""

import asyncio
import os
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def opened(store: Path, wait: float) -> pyrepl3.Session:
    return await pyrepl3.open_session("s", store=store, config=quick(), wait=wait)


async def test_who_waits_has_the_session_once_its_owner_closes_it(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    first = await opened(store, 0)
    with pytest.raises(pyrepl3.SessionBusy, match=f"'s' is owned by process {os.getpid()}"):
        await opened(store, 0)
    second = asyncio.create_task(opened(store, 60))
    await first.execute("x = 1")
    await first.execute("x = 2")
    assert not second.done()
    await first.close()
    async with await second as session:
        assert (await session.execute("x")).value == 2


async def test_a_wait_that_is_cancelled_or_over_leaves_the_owner_alone(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    async with await opened(store, 0) as first:
        with pytest.raises(pyrepl3.SessionBusy):
            await opened(store, 0.3)
        waiting = asyncio.create_task(opened(store, 60))
        await first.execute("x = 1")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert (await first.execute("x")).value == 1
    async with await opened(store, 0) as session:
        assert (await session.execute("x")).value == 1
