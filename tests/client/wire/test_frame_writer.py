"""How frames go out: at once, together, and behind a full pipe."""

import asyncio
import contextvars
import os
from collections.abc import AsyncIterator

import pytest

from pyrepl3_client._launch.worker import WorkerPipes
from pyrepl3_client._wire.connection import FrameWriter


@pytest.fixture
async def pipe() -> AsyncIterator[tuple[FrameWriter, int]]:
    """Return a writer and the end that a worker reads from."""
    reader, stdin = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(stdin, False)
    writer = FrameWriter(WorkerPipes(stdin, -1, -1, -1, -1, -1), contextvars.copy_context())
    yield writer, reader
    writer.close_now()
    os.close(reader)


def read(fd: int) -> bytes:
    """Read what is there."""
    try:
        return os.read(fd, 1 << 24)
    except BlockingIOError:
        return b""


@pytest.mark.anyio
async def test_a_lone_frame_goes_out_at_once(pipe: tuple[FrameWriter, int]) -> None:
    writer, reader = pipe
    writer.write_now(b"frame")
    assert read(reader) == b"frame"


@pytest.mark.anyio
async def test_frames_of_one_turn_go_out_together_and_before_what_is_written_after(
    pipe: tuple[FrameWriter, int],
) -> None:
    writer, reader = pipe
    writer.write_batched(b"1")
    writer.write_batched(b"2")
    assert read(reader) == b""
    await asyncio.sleep(0)
    assert read(reader) == b"12"
    writer.write_batched(b"3")
    writer.write_now(b"4")
    assert read(reader) == b"34"
    await asyncio.sleep(0)
    assert read(reader) == b""


@pytest.mark.anyio
async def test_a_full_pipe_delays_and_loses_nothing(pipe: tuple[FrameWriter, int]) -> None:
    writer, reader = pipe
    sent = bytes(range(256)) * 4096
    writer.write_now(sent)
    writer.write_batched(b"put")
    writer.write_now(b"written")
    writer.close()
    got = b""
    while len(got) < len(sent) + 10:
        got += read(reader)
        await asyncio.sleep(0)
    assert got == sent + b"putwritten"
    await asyncio.sleep(0)
    assert os.read(reader, 1) == b"", "and then its end"


@pytest.mark.anyio
async def test_writing_to_a_worker_that_reads_no_more_raises_nothing(pipe: tuple[FrameWriter, int]) -> None:
    writer, reader = pipe
    writer.write_now(b"x" * (1 << 20))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, reader)
    os.close(null)
    await asyncio.sleep(0.01)
    writer.write_now(b"more")
    writer.close()
