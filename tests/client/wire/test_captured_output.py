"""What is written to fds 1 and 2 past Python: its place, its characters, its bound."""

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyrepl3_client as pyrepl3
from pyrepl3_client import ExecutorConfig
from pyrepl3_client._wire.captured_output import CapturePipes
from pyrepl3_client.testing import Run, ScriptedWorker
from tests.helpers.scripted_sessions import ONE, opened

pytestmark = pytest.mark.anyio


async def test_it_comes_before_what_was_sent_after_it(worker: ScriptedWorker) -> None:
    @worker.script("mixed")
    async def mixed(run: Run) -> None:
        run.print("1 ")
        run.write(b"2 ")
        run.print("3 ", captured=True)
        run.print("4 ")
        await run.input()  # the parent has read everything so far
        run.write(b"5 ")
        run.display({"text/plain": "6"})
        await run.input()
        run.write(b"7 ")
        await run.input()
        run.write(b"8")

    events: list[str] = []
    async with opened(worker, on_input=lambda prompt: "") as session:
        async for event in session.start("mixed"):
            match event:
                case pyrepl3.Output():
                    events += event.data.split()
                case pyrepl3.Display():
                    events.append("6")
                case _:
                    events.append(type(event).__name__)
    order = ["1", "2", "3", "4", "Input", "5", "6", "Input", "7", "Input", "8", "Result"]
    assert events == order


async def test_a_frame_sent_before_it_comes_before_it_whichever_pipe_is_seen_first(
    worker: ScriptedWorker,
) -> None:
    @worker.script("both")
    async def both(run: Run) -> None:
        run.print("frame ")
        run.write(b"bytes")
        # As the loop does when it comes to the captured bytes first.
        session._supervisor.require_worker().connection._on_capture_readable()  # pyright: ignore[reportPrivateUsage]

    async with opened(worker) as session:
        assert (await session.execute("both")).stdout == "frame bytes"


async def test_the_streams_are_told_apart(worker: ScriptedWorker) -> None:
    @worker.script("both")
    async def both(run: Run) -> None:
        run.write(b"out")
        run.write(b"err", "stderr")

    async with opened(worker) as session:
        result = await session.execute("both")
    assert (result.stdout, result.stderr) == ("out", "err")


async def test_over_the_bound_head_and_tail_are_kept_and_the_cut_is_told(worker: ScriptedWorker) -> None:
    @worker.script("floods")
    async def floods(run: Run) -> None:
        run.print("12345")
        for number in range(10):
            run.write(f"{number}".encode() * 100)

    config = pyrepl3.WorkerConfig(executor=ExecutorConfig(max_output_bytes=400))
    live: list[str] = []
    async with opened(worker, config=config, on_output=lambda o: live.append(o.data)) as session:
        result = await session.execute("floods")
        assert result.truncated
        head, marker, tail = result.stdout.split("\n")
        assert head == "12345" + "0" * 100 + "1" * 95
        assert marker == "… 605 bytes of output cut (max_output_bytes=400; see output()) …"
        assert tail == "8" * 100 + "9" * 100
        assert "".join(live) == result.stdout
        assert not (await session.execute(ONE)).truncated


@pytest.fixture
def pipes() -> Iterator[tuple[CapturePipes, int, int]]:
    """Return the pipes and their write ends."""
    (out, out_write), (err, err_write) = os.pipe(), os.pipe()
    for fd in (out, err):
        os.set_blocking(fd, False)
    yield CapturePipes(out, err), out_write, err_write
    for fd in (out, err, out_write, err_write):
        os.close(fd)


def test_nothing_there_is_nothing(pipes: tuple[CapturePipes, int, int]) -> None:
    capture, _, _ = pipes
    assert capture.drain() == capture.flush() == capture.read_to(capture.marks()) == []


def test_reading_to_a_mark_leaves_what_came_after_it(pipes: tuple[CapturePipes, int, int]) -> None:
    capture, out, err = pipes
    os.write(out, b"before")
    marks = capture.marks()
    os.write(out, b" after")
    assert capture.read_to(marks) == [("stdout", "before", 6)]
    os.write(err, b"!")
    assert capture.drain() == [("stdout", " after", 6), ("stderr", "!", 1)]
    assert capture.read_to(marks) == []


def test_a_drain_takes_no_more_than_a_pipe_holds(pipes: tuple[CapturePipes, int, int]) -> None:
    """A process that writes on and on must not hold the loop."""
    capture, out, _ = pipes
    os.set_blocking(out, False)
    size = os.write(out, b"x" * 4_000_000)
    assert sum(count for _, _, count in capture.drain()) == size


def test_the_end_of_a_stream_ends_its_last_character(pipes: tuple[CapturePipes, int, int]) -> None:
    capture, out, _ = pipes
    os.write(out, "€".encode()[:2])
    assert capture.drain() == []
    assert capture.partial
    copy = os.dup(out)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, out)
    os.close(copy)
    os.close(null)
    assert capture.drain() == [("stdout", "\ufffd", 0)]
    assert len(capture.open_fds) == 1


@given(st.text(), st.lists(st.integers(0, 400)))
def test_characters_survive_every_way_of_cutting(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "replace")
    (out, out_write), (err, err_write) = os.pipe(), os.pipe()
    try:
        for fd in (out, err):
            os.set_blocking(fd, False)
        capture = CapturePipes(out, err)
        places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
        seen = ""
        for start, end in itertools.pairwise(places):
            os.write(out_write, data[start:end])
            seen += "".join(chunk for _, chunk, _ in capture.drain())
        assert seen == data.decode()
        assert capture.flush() == []
    finally:
        for fd in (out, err, out_write, err_write):
            os.close(fd)


async def test_what_was_written_after_a_frame_stays_behind_it(worker: ScriptedWorker) -> None:
    """A parent that is late finds both in the pipe, and the frame tells them apart."""

    @worker.script("late")
    async def late(run: Run) -> None:
        run.write(b"1 ")
        run.print("2 ", captured=True)
        run.write(b"3 ")
        run.print("4 ", captured=True)
        run.write(b"5 ")

    async with opened(worker) as session:
        assert (await session.execute("late")).stdout == "1 2 3 4 5 "
