"""Output handlers: who gets what, in which order, and what their failures do."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import Output
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.messages import Execute
from tests.helpers.scripted_sessions import ONE, SLEEP, brief, opened

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def script_prints(worker: ScriptedWorker, *texts: str) -> None:
    @worker.script("prints")
    async def prints(run: Run) -> None:
        for text in texts:
            run.print(text)


async def test_both_handlers_get_the_output_in_order(worker: ScriptedWorker) -> None:
    script_prints(worker, "a", "b")
    seen: list[str] = []
    async with opened(worker, on_output=lambda o: seen.append(f"session {o.data}")) as session:
        await session.execute("prints", on_output=lambda o: seen.append(f"execution {o.data}"))
        await session.execute("prints")
    assert seen == ["session a", "execution a", "session b", "execution b", "session a", "session b"]


async def test_an_asynchronous_handler_is_awaited_before_the_next_and_before_the_result(
    worker: ScriptedWorker,
) -> None:
    script_prints(worker, "a", "b", "c")
    seen: list[str] = []

    async def handler(output: Output) -> None:
        seen.append(f"begin {output.data}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(f"end {output.data}")

    async with opened(worker) as session:
        await session.execute("prints", on_output=handler)
        assert seen == [f"{what} {name}" for name in "abc" for what in ("begin", "end")]


async def test_a_slow_asynchronous_handler_makes_the_worker_wait(worker: ScriptedWorker) -> None:
    script_prints(worker, *["x" * MIB] * 40)
    taken = 0
    go_on = asyncio.Event()

    async def handler(output: Output) -> None:
        nonlocal taken
        taken += len(output.data)
        await go_on.wait()

    async with opened(worker, on_output=handler) as session:
        execution = session.start("prints")
        backlog = -1
        while worker.process.unsent_bytes != backlog:
            backlog = worker.process.unsent_bytes
            for _ in range(100):
                await asyncio.sleep(0)
        assert backlog > 20 * MIB
        assert taken == MIB
        go_on.set()
        assert len((await execution.result()).stdout) == 40 * MIB
        assert taken == 40 * MIB


async def test_a_handler_that_hangs_does_not_get_the_worker_killed(worker: ScriptedWorker) -> None:
    """The cancelled execution has ended; that its output waits for the handler is not its fault."""

    async def handler(output: Output) -> None:
        await asyncio.Event().wait()

    async with opened(worker, config=brief()) as session:
        execution = session.start(SLEEP, on_output=handler)
        await worker.wait_for(Execute)
        await execution.cancel()
        await asyncio.sleep(0.1)  # twice what all steps of a cancel take
        assert session.state is pyrepl3.SessionState.READY


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_handler_raises_comes_out_of_the_result(
    worker: ScriptedWorker, asynchronous: bool
) -> None:
    script_prints(worker, "a", "b")
    calls = 0

    def fails(output: Output) -> None:
        nonlocal calls
        calls += 1
        raise BrokenPipeError(output.data)

    async def fails_later(output: Output) -> None:
        fails(output)

    async with opened(worker) as session:
        with pytest.raises(BrokenPipeError, match="a") as failure:
            await session.execute("prints", on_output=fails_later if asynchronous else fails)
        assert calls == 2
        assert "raised by on_output" in failure.value.__notes__[0]
        assert (await session.execute(ONE)).value == 2


async def test_a_handler_that_something_cancels_holds_nothing_up(worker: ScriptedWorker) -> None:
    script_prints(worker, "a", "b")
    heard: list[str] = []

    async def cancels_itself(output: Output) -> None:
        heard.append(output.data)
        task = asyncio.current_task()
        assert task is not None
        task.cancel("lost the connection")
        await asyncio.Event().wait()

    async with opened(worker) as session:
        with pytest.raises(Exception, match="lost the connection") as failure:
            await session.execute("prints", on_output=cancels_itself)
        assert type(failure.value).__name__ == "CancelledError"
        assert heard == ["a", "b"]
        assert (await session.execute(ONE)).value == 2


async def test_late_output_goes_to_the_session_alone(worker: ScriptedWorker) -> None:
    @worker.script("late")
    async def late(run: Run) -> None:
        run.send(Output(stream="stdout", data="late", execution_id="gone", late=True))
        run.send(Output(stream="stdout", data="of no execution"))
        run.print("mine")

    seen: list[str] = []
    async with opened(worker, on_output=lambda o: seen.append(o.data)) as session:
        result = await session.execute("late")
    assert result.stdout == "mine"
    assert seen == ["late", "of no execution", "mine"]


async def test_late_output_under_the_id_that_runs_is_not_in_its_result(worker: ScriptedWorker) -> None:
    @worker.script("late")
    async def late(run: Run) -> None:
        run.send(Output(stream="stdout", data="late", execution_id=run.message.execution_id, late=True))

    async with opened(worker) as session:
        assert (await session.execute("late")).stdout == ""


async def test_a_handlers_failure_over_output_of_no_execution_goes_to_the_loop(
    worker: ScriptedWorker,
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def fails(output: Output) -> None:
        raise ValueError(output.data)

    async with opened(worker, on_output=fails) as session:
        worker.process.send(Output(stream="stdout", data="of no execution"))
        assert (await session.execute(ONE)).value == 2
    asyncio.get_running_loop().set_exception_handler(None)
    (context,) = told
    assert isinstance(context["exception"], ValueError)


async def test_output_after_the_end_of_the_last_execution_is_heard(worker: ScriptedWorker) -> None:
    heard = asyncio.Event()
    async with opened(worker, on_output=lambda o: heard.set()) as session:
        await session.execute(ONE)
        worker.process.write_captured(b"from a child in the background\n")
        await heard.wait()


async def test_what_was_written_before_the_end_is_heard_in_spite_of_it(worker: ScriptedWorker) -> None:
    seen: list[str] = []
    async with opened(worker, on_output=lambda o: seen.append(o.data)):
        worker.process.send(Output(stream="stdout", data="frame "))
        worker.process.write_captured(b"past python")
    assert "".join(sorted(seen)) == "frame past python"


async def test_an_asynchronous_handler_still_at_work_at_the_end_is_given_a_grace(
    worker: ScriptedWorker,
) -> None:
    cancelled = asyncio.Event()

    async def handler(output: Output) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with opened(worker, config=brief(), on_output=handler) as session:
        execution = session.start(SLEEP)
        await worker.wait_for(Execute)
    assert cancelled.is_set()
    with pytest.raises(pyrepl3.SessionClosed):
        await execution.result()


async def test_output_that_a_dead_worker_has_left_does_not_stop_the_next_one(worker: ScriptedWorker) -> None:
    """A cancel reads on in spite of a slow handler; when it ends in a kill, much is not handed over yet."""

    @worker.script("prints on and on")
    async def prints(run: Run) -> None:
        for _ in range(40):
            run.print("x" * MIB)
        while not worker.process.ended:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    taken = 0
    hurry = False

    async def handler(output: Output) -> None:
        nonlocal taken
        taken += 1
        if not hurry:
            await asyncio.sleep(0.05)

    config = brief(spawn_timeout=0.5, cancel_grace=0.2)
    async with opened(worker, config=config, on_output=handler, recovery="auto") as session:
        execution = session.start("prints on and on")
        await worker.wait_for(Execute)
        await execution.cancel()
        await session.ping()
        assert session.worker.incarnation == 2
        assert taken < 30, "the handler has the rest yet to take"
        hurry = True
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await execution.result()
