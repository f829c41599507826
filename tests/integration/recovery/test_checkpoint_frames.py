"""Values that are longer than a frame."""

import os
import signal
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.mark.parametrize("store", ["none", "sqlite"])
@pytest.mark.parametrize("most", [16_384, 65_536])
async def test_a_value_longer_than_a_frame_is_saved_in_parts(tmp_path: Path, store: str, most: int) -> None:
    where = tmp_path / "state.db" if store == "sqlite" else None
    async with pyrepl3.open_session(config=quick(max_frame_bytes=most), store=where) as session:
        await session.execute("text = bytes(range(256)) * 1000; parts = [text, 'é' * 40_000]; None")
        assert (await session.checkpoint("here")).unsaved == []
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "text == bytes(range(256)) * 1000 and parts[1] == 'é' * 40_000")
        assert session.recoveries[-1].lost == ()


async def test_a_value_too_large_for_frames_as_short_as_that_is_an_error_that_says_so() -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=4096)) as session:
        await session.execute("text = bytes(range(256)) * 2000; None")
        with pytest.raises(pyrepl3.ProtocolError, match="over 4096"):
            await session.checkpoint("here")
        assert await value(session, "len(text)") == 512_000


async def test_more_names_than_fit_a_frame_are_an_error_that_says_so_and_nothing_worse() -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=65_536)) as session:
        await session.execute("for n in range(5000): globals()[f'name_{n}'] = n")
        with pytest.raises(pyrepl3.ProtocolError, match="bytes"):
            await session.checkpoint("here")
        pid = session.worker.pid
        assert await value(session, "name_4999") == 4999
        assert session.worker.pid == pid
