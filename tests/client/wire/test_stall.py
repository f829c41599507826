"""When a worker is taken to have stopped inside a frame, and when it is not its fault."""

import asyncio
import time

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.messages import Output, Result
from tests.helpers.scripted_sessions import brief, opened, until_output

pytestmark = pytest.mark.anyio

TIMEOUT = 0.05


def halves(execution_id: str, size: int) -> tuple[bytes, bytes]:
    frame = encode(Output(stream="stdout", data="x" * size, execution_id=execution_id))
    return frame[: size // 2], frame[size // 2 :]


async def test_a_frame_that_is_not_read_to_its_end_is_not_late(worker: ScriptedWorker) -> None:
    """A slow reader holds; the rest of the frame has to come when it reads on, and not before."""
    go_on, held = asyncio.Event(), asyncio.Event()

    async def slow(output: pyrepl3.Output) -> None:
        if output.data == "first":
            held.set()
            await go_on.wait()

    @worker.script("writes a lot")
    async def writes(run: Run) -> None:
        run.print("first")
        # More than is kept, so that nobody reads; and the frame that the reading stops in.
        for _ in range(40):
            run.print("y" * 500_000)

    async with opened(worker, config=brief(stall_timeout=TIMEOUT), on_output=slow) as session:
        execution = session.start("writes a lot")
        await held.wait()
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_later(4 * TIMEOUT, over.set_result, None)
        await over
        assert worker.process.unsent_bytes > 0, "it was read to its end, which shows nothing"
        go_on.set()
        assert len((await execution.result()).stdout) == 20_000_005


async def test_a_loop_that_was_held_up_reads_before_it_judges(worker: ScriptedWorker) -> None:
    @worker.script("in halves")
    async def in_halves(run: Run) -> None:
        first, second = halves(run.message.execution_id, 100_000)
        run.print("begun")
        worker.process.send_bytes(first)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        worker.process.send_bytes(second)
        time.sleep(2 * TIMEOUT)  # noqa: ASYNC251 - a host function that holds the loop is what this is about

    async with opened(worker, config=brief(stall_timeout=TIMEOUT)) as session:
        assert len((await session.execute("in halves")).stdout) == 100_005


async def test_a_long_frame_may_take_its_time_while_it_comes(worker: ScriptedWorker) -> None:
    """Longer, in all, than a worker may stop."""

    @worker.script("bit by bit")
    async def bit_by_bit(run: Run) -> None:
        loop = asyncio.get_running_loop()
        frame = encode(Output(stream="stdout", data="x" * 2_000_000, execution_id=run.message.execution_id))
        for start in range(0, len(frame), 100_000):
            worker.process.send_bytes(frame[start : start + 100_000])
            pause = loop.create_future()
            loop.call_later(TIMEOUT / 4, pause.set_result, None)
            await pause

    async with opened(worker, config=brief(stall_timeout=TIMEOUT)) as session:
        assert len((await session.execute("bit by bit")).stdout) == 2_000_000


async def test_a_stall_after_a_frame_that_came_whole_is_noticed(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief(stall_timeout=TIMEOUT)) as session:
        execution = session.start("await sleep(60)", execution_id="e")
        await until_output(execution)
        first, second = halves("e", 1000)
        worker.process.send_bytes(first)
        worker.process.send_bytes(second + first)
        with pytest.raises(pyrepl3.WorkerDied, match="stopped inside a frame") as death:
            await execution.result()
        assert isinstance(death.value.__cause__, pyrepl3.ProtocolError)
        assert death.value.__cause__.offset is not None


async def test_none_lets_a_worker_stop_for_ever(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief(stall_timeout=None)) as session:
        execution = session.start("await sleep(60)", execution_id="e")
        await until_output(execution)
        first, second = halves("e", 1000)
        worker.process.send_bytes(first)
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_later(2 * TIMEOUT, over.set_result, None)
        await over
        worker.process.send_bytes(second + encode(Result("e", "m", repr="made it")))
        assert (await execution.result()).repr == "made it"


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_a_time_that_means_nothing_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="stall_timeout"):
        pyrepl3.WorkerConfig(stall_timeout=seconds)
    with pytest.raises(ValueError, match="max_checkpoint_bytes"):
        pyrepl3.WorkerConfig(max_checkpoint_bytes=0)
