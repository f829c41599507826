"""One suite for both workers: what holds for the scripted one is what the real one does."""

import asyncio
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import Call, Input, Output, Result, SessionState
from tests.contract import cells
from tests.contract.conftest import Opener

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


def add(a: int, b: int) -> int:
    return a + b


async def test_a_session_greets_its_worker(open_session: Opener) -> None:
    async with open_session(session_id="mine") as session:
        assert session.session_id == "mine"
        assert session.state is SessionState.READY
        assert session.worker.incarnation == 1
        assert session.worker.pid > 0
        assert session.worker.python


async def test_a_value_comes_back(open_session: Opener) -> None:
    async with open_session() as session:
        result = await session.execute(cells.ONE, execution_id="first")
    assert (result.execution_id, result.value, result.repr, result.type_name) == ("first", 2, "2", "int")
    assert (result.stdout, result.stderr, result.error, result.truncated) == ("", "", None, False)
    assert (result.replayed, result.attempts) == (False, 1)


async def test_a_value_that_has_no_wire_form_has_its_repr(open_session: Opener) -> None:
    async with open_session() as session:
        result = await session.execute(cells.UNENCODABLE)
    assert (result.value, result.repr, result.type_name) == (None, "<class 'object'>", "type")


async def test_a_failure_is_raised_with_its_traceback(open_session: Opener) -> None:
    async with open_session() as session:
        with pytest.raises(pyrepl3.ExecutionFailed, match="ValueError: on purpose") as failure:
            await session.execute(cells.FAILS)
        error = failure.value.error
        assert (error.kind, error.type, error.message) == ("exception", "ValueError", "on purpose")
        assert str(failure.value).startswith("Traceback (most recent call last):")
        assert (await session.execute(cells.ONE)).value == 2


async def test_a_failure_is_returned_when_it_is_not_checked(open_session: Opener) -> None:
    async with open_session() as session:
        result = await session.execute(cells.FAILS, check=False)
    assert result.error is not None
    assert result.error.type == "ValueError"


async def test_output_is_in_the_result_by_stream(open_session: Opener) -> None:
    async with open_session() as session:
        result = await session.execute(cells.PRINTS)
    assert (result.stdout, result.stderr) == ("one\nthree\n", "two\n")


async def test_events_come_in_order_and_end_with_the_result(open_session: Opener) -> None:
    async with open_session() as session:
        events = [event async for event in session.start(cells.PRINTS)]
    assert isinstance(events[-1], Result)
    written = [(event.stream, event.data) for event in events if isinstance(event, Output)]
    assert len(written) == len(events) - 1
    assert "".join(data for stream, data in written if stream == "stdout") == "one\nthree\n"
    assert [stream for stream, _ in written] == ["stdout", "stderr", "stdout"]


async def test_what_is_written_past_python_stands_where_it_was_written(open_session: Opener) -> None:
    seen: list[Output] = []
    async with open_session(on_output=seen.append) as session:
        result = await session.execute(cells.PAST_PYTHON)
    assert result.stdout == "a\nb\nc\n"
    assert "".join(output.data for output in seen) == "a\nb\nc\n"
    assert {output.execution_id for output in seen} == {result.execution_id}


async def test_a_character_in_two_writes_is_one_character(open_session: Opener) -> None:
    async with open_session() as session:
        assert (await session.execute(cells.SPLIT)).stdout == "€"


async def test_half_a_character_is_replaced_and_spoils_nothing_after_it(open_session: Opener) -> None:
    async with open_session() as session:
        assert (await session.execute(cells.UNFINISHED)).stdout == "\ufffd"
        assert (await session.execute(cells.PAST_PYTHON)).stdout == "a\nb\nc\n"


async def test_a_question_is_asked_and_answered(open_session: Opener) -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "Ada"

    async with open_session(on_input=answer) as session:
        execution = session.start(cells.ASKS, execution_id="ask")
        events = [event async for event in execution]
        assert (await execution.result()).value == "hello Ada"
    assert prompts == ["name? "]
    (question,) = [event for event in events if isinstance(event, Input)]
    assert (question.input_id, question.prompt) == ("ask:input:1", "name? ")


async def test_without_an_input_handler_input_raises_EOFError(open_session: Opener) -> None:
    async with open_session() as session:
        result = await session.execute(cells.ASKS, check=False)
    assert result.error is not None
    assert result.error.type == "EOFError"


async def test_a_host_function_is_called(open_session: Opener) -> None:
    async with open_session(capabilities={"add": add}) as session:
        execution = session.start(cells.CALLS, execution_id="call")
        events = [event async for event in execution]
        assert (await execution.result()).value == 3
    (call,) = [event for event in events if isinstance(event, Call)]
    assert (call.call_id, call.capability) == ("call:add:1", "add")


async def test_a_host_functions_error_is_the_codes(open_session: Opener) -> None:
    async with open_session(capabilities={"add": add}) as session:
        result = await session.execute(cells.CALLS_BADLY, check=False)
    assert result.error is not None
    assert result.error.type == "TypeError"
    assert "missing" in result.error.message


async def test_a_cancel_ends_the_execution_and_nothing_else(open_session: Opener) -> None:
    async with open_session() as session:
        execution = session.start(cells.SLEEPS)
        async for event in execution:
            if isinstance(event, Output):
                break
        await execution.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await execution.result()
        assert (await session.execute(cells.ONE)).value == 2
        assert session.worker.incarnation == 1


async def test_a_queued_execution_can_be_cancelled(open_session: Opener) -> None:
    async with open_session() as session:
        running, queued = session.start(cells.SLEEPS), session.start(cells.FAILS)
        await queued.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await queued.result()
        await running.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await running.result()


async def test_a_cancel_after_the_end_does_nothing(open_session: Opener) -> None:
    async with open_session() as session:
        execution = session.start(cells.ONE)
        assert (await execution.result()).value == 2
        await execution.cancel()
        assert await session.cancel() is False
        assert (await execution.result()).value == 2
        assert (await session.execute(cells.ONE)).value == 2


async def test_the_end_of_a_call_that_is_under_way(open_session: Opener) -> None:
    called, ended = asyncio.Event(), asyncio.Event()

    async def never() -> None:
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with open_session(capabilities={"never": never}) as session:
        execution = session.start(cells.WAITS_FOR_A_CALL)
        await called.wait()
        await execution.cancel()
        await ended.wait()


async def test_a_timeout_is_a_timeout(open_session: Opener) -> None:
    async with open_session() as session:
        with pytest.raises(pyrepl3.ExecutionTimeout) as failure:
            await session.execute(cells.SLEEPS, timeout=0.1)
        assert isinstance(failure.value, TimeoutError)
        assert failure.value.error.kind == "timeout"
        assert failure.value.result.stdout == "asleep\n"


async def test_executions_run_in_the_order_of_their_submission(open_session: Opener) -> None:
    order: list[str] = []
    async with open_session(on_output=lambda output: order.append(output.execution_id or "")) as session:
        executions = [session.start(cells.PAST_PYTHON, execution_id=f"e{number}") for number in range(5)]
        for execution in reversed(executions):
            await execution.result()
    assert list(dict.fromkeys(order)) == ["e0", "e1", "e2", "e3", "e4"]


async def test_questions_are_answered_while_code_runs(open_session: Opener) -> None:
    async with open_session() as session:
        execution = session.start(cells.SLEEPS)
        async for event in execution:
            if isinstance(event, Output):
                break
        assert (await session.ping()).current_execution == execution.execution_id
        assert (await session.stats()).total_executions >= 0
        assert isinstance(await session.variables(), dict)
        await session.complete("impo")
        await session.inspect("print")
        await execution.cancel()


async def test_a_checkpoint_is_put_back_into_a_fresh_worker(open_session: Opener) -> None:
    async with open_session() as session:
        taken = await session.checkpoint("mine")
        assert (taken.checkpoint_id, taken.unsaved) == ("mine", [])
        assert taken.data
        await session.restart()
        assert (await session.restore("mine")).checkpoint_id == "mine"
        with pytest.raises(ValueError, match="'lost'"):
            await session.restore("lost")


async def test_a_dead_worker_is_told_and_replaced(open_session: Opener) -> None:
    async with open_session() as session:
        with pytest.raises(pyrepl3.WorkerDied, match="exit code 3") as death:
            await session.execute(cells.EXITS, execution_id="fatal")
        assert (death.value.exit_code, death.value.signal) == (3, None)
        assert death.value.running == ("fatal",)
        assert session.state is SessionState.DEAD
        with pytest.raises(pyrepl3.WorkerDied, match="restart"):
            session.start(cells.ONE)
        await session.restart()
        assert session.worker.incarnation == 2
        assert (await session.execute(cells.ONE)).value == 2


async def test_garbage_on_the_wire_ends_that_worker_and_says_where(open_session: Opener) -> None:
    """A worker's code cannot send garbage, so the stream is put out of step on our side."""
    async with open_session() as session, open_session() as other:
        connection: Any = session._supervisor.require_worker().connection  # pyright: ignore[reportPrivateUsage]
        connection._decoder.feed(b"\0\0\0\1")
        with pytest.raises(pyrepl3.WorkerDied, match=r"broke the protocol: .*at byte \d+") as death:
            await session.execute(cells.ONE)
        assert isinstance(death.value.__cause__, pyrepl3.ProtocolError)
        assert death.value.signal == 9
        assert (await other.execute(cells.ONE)).value == 2


async def test_leaving_ends_what_runs(open_session: Opener) -> None:
    async with open_session() as session:
        execution = session.start(cells.SLEEPS)
    with pytest.raises(pyrepl3.SessionClosed):
        await execution.result()
    with pytest.raises(pyrepl3.SessionClosed):
        session.start(cells.ONE)
    assert session.state is SessionState.CLOSED
    await session.close()
