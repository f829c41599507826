"""Submitting code: arguments, ids, order, and what comes back."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.messages import Error, ExceptionData, Execute, Frame, Result
from tests.helpers.scripted_sessions import ONE, SLEEP, STUBBORN, brief, opened, turns_until, until_output

pytestmark = pytest.mark.anyio


async def test_ids_are_made_up_without_colons_and_never_twice(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        ids = [(await session.execute(ONE)).execution_id for _ in range(3)]
    async with opened(worker) as session:
        ids.append((await session.execute(ONE)).execution_id)
    assert len(set(ids)) == 4
    assert not any(":" in execution_id for execution_id in ids)


@pytest.mark.parametrize("execution_id", ["", "a:b", 3])
async def test_an_id_that_means_nothing_is_refused(worker: ScriptedWorker, execution_id: str) -> None:
    async with opened(worker) as session:
        with pytest.raises(ValueError, match="execution_id"):
            session.start(ONE, execution_id=execution_id)
        with pytest.raises(ValueError, match="checkpoint_id"):
            await session.checkpoint(execution_id)


async def test_an_id_stands_for_one_code_in_flight_and_when_it_has_ended(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        running = session.start(SLEEP, execution_id="same")
        with pytest.raises(pyrepl3.ExecutionIdConflict, match="'same'"):
            session.start(ONE, execution_id="same")
        again = session.start(SLEEP, execution_id="same")
        assert again == running
        assert len({again, running, session.start(ONE)}) == 2
        await running.cancel()
        with pytest.raises(pyrepl3.ExecutionIdConflict, match=r"line 1 on: 'await sleep.60.' was recorded"):
            session.start(ONE, execution_id="same")
        with pytest.raises(pyrepl3.ExecutionCancelled) as cancelled:
            await session.execute(SLEEP, execution_id="same")
        assert cancelled.value.result.replayed


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        *((value, ValueError) for value in (0, -1, float("nan"), float("inf"), 2e9, 10**400, Decimal("nan"))),
        *((value, TypeError) for value in (True, "5", b"5", [5], 1j)),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_timeout_that_means_nothing_is_refused(
    worker: ScriptedWorker, timeout: Any, error: type[Exception]
) -> None:
    async with opened(worker) as session:
        await session.checkpoint("saved")
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: session.execute(ONE, timeout=timeout),
            lambda: session.ping(timeout),
            lambda: session.stats(timeout),
            lambda: session.variables(timeout),
            lambda: session.complete("x", timeout=timeout),
            lambda: session.inspect("x", timeout=timeout),
            lambda: session.checkpoint(timeout=timeout),
            lambda: session.restore("saved", timeout=timeout),
        ]
        for ask in asks:
            with pytest.raises(error, match="timeout"):
                await ask()
        assert (await session.execute(ONE)).value == 2


class Seconds(float):
    """A number that is no plain float, as those of number libraries."""


@pytest.mark.parametrize("timeout", [Decimal("600.5"), Fraction(1201, 2), Seconds(600.5)], ids=repr)
async def test_any_number_serves_as_a_timeout(worker: ScriptedWorker, timeout: Any) -> None:
    async with opened(worker) as session:
        assert (await session.execute(ONE, timeout=timeout)).value == 2
        assert (await session.ping(timeout)).nonce


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("spawn_timeout", "cancel_grace", "stall_timeout")
            for value in (True, "5")
        ),
        *(("max_checkpoint_bytes", value) for value in (True, 1.5, None)),
        *(("warm", value) for value in ("os", [5])),
        *(("env", value) for value in ({"A": 5}, {5: "A"}, ["A"])),
        *((name, {}) for name in ("executor", "sandbox", "limits", "confinement_required", "python")),
    ],
    ids=str,
)
def test_a_configuration_of_wrong_types_is_refused_where_it_is_made(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        pyrepl3.WorkerConfig(**{name: value})


async def test_other_arguments_that_mean_nothing_are_refused(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        with pytest.raises(ValueError, match="result_mode"):
            session.start(ONE, result_mode="all")  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="code must be a string, not 1"):
            session.start(1)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="reason"):
            await session.cancel("boredom")  # pyright: ignore[reportArgumentType]
        assert (await session.execute(ONE)).value == 2


async def test_code_that_cannot_be_sent_is_refused_and_leaves_no_trace(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        with pytest.raises(pyrepl3.ProtocolError, match="surrogates"):
            session.start("'\ud800'", execution_id="bad")
        with pytest.raises(pyrepl3.ProtocolError, match="over 67108864"):
            await session.execute("#" * (64 << 20))
        assert (await session.execute(ONE, execution_id="bad")).value == 2


async def test_options_reach_the_worker_but_not_the_time_that_the_client_keeps(
    worker: ScriptedWorker,
) -> None:
    async with opened(worker) as session:
        await session.execute(ONE, execution_id="e", timeout=5, result_mode="last_expr")
    assert Execute("e", ONE, result_mode="last_expr") in worker.received


async def test_many_submitted_at_once_all_come_back_in_order(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        executions = [session.start(ONE) for _ in range(5_000)]
        results = [await execution.result() for execution in executions]
    assert [result.execution_id for result in results] == [e.execution_id for e in executions]
    sent = [message.execution_id for message in worker.received if isinstance(message, Execute)]
    assert sent == [execution.execution_id for execution in executions]


async def test_a_result_can_be_awaited_by_many_and_again(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(ONE)
        results = await asyncio.gather(*(execution.result() for _ in range(3)))
        assert all(result is results[0] for result in results)
        assert await execution.result() is results[0]


async def test_cancelling_a_wait_for_a_result_leaves_the_execution_alone(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP)
        waiting = asyncio.create_task(execution.result())
        await worker.wait_for(Execute)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert execution.state is pyrepl3.ExecutionState.RUNNING
        await execution.cancel()


async def test_an_execution_can_be_awaited_itself(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(ONE)
        result = await execution
        assert result.value == 2
        assert await execution is result is await execution.result()
        failing = session.start("no script has this")
        with pytest.raises(pyrepl3.ExecutionFailed):
            await failing
        results = await asyncio.gather(session.start(ONE), session.start(ONE))
        assert [each.value for each in results] == [2, 2]


async def test_cancelling_the_wait_for_an_execution_leaves_it_alone(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(execution, 0.01)
        assert execution.state is pyrepl3.ExecutionState.RUNNING
        await execution.cancel()


async def test_states_of_executions(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        first, second = session.start(SLEEP), session.start(ONE)
        assert (first.state.value, second.state.value) == ("running", "queued")
        cancel = asyncio.create_task(first.cancel())
        await asyncio.sleep(0)
        assert first.state.value == "cancelling"
        await cancel
        assert first.state.value == "finished"
        await second.result()
        assert second.state.value == "finished"
        assert repr(second) == f"<Execution {second.execution_id!r} finished>"


async def test_an_execution_runs_when_those_before_it_have_ended(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        first, second, third = session.start(SLEEP), session.start(SLEEP), session.start(ONE)
        assert [each.state.value for each in (first, second, third)] == ["running", "queued", "queued"]
        await first.cancel()
        assert [each.state.value for each in (first, second, third)] == ["finished", "running", "queued"]
        await second.cancel()
        assert (await third.result()).value == 2
        assert third.state.value == "finished"


async def test_an_execution_is_queued_again_while_its_dead_worker_is_replaced(worker: ScriptedWorker) -> None:
    async with opened(worker, recovery="auto") as session:
        first, second = session.start(SLEEP), session.start(SLEEP)
        await until_output(first)
        worker.process.kill()
        while first.state is pyrepl3.ExecutionState.RUNNING:  # noqa: ASYNC110 - its next state lasts few turns
            await asyncio.sleep(0)
        assert (first.state.value, second.state.value) == ("queued", "queued")
        await turns_until(lambda: first.state is pyrepl3.ExecutionState.RUNNING)
        assert (second.state.value, first.attempts, second.attempts) == ("queued", 2, 1)
        await first.cancel()
        await second.cancel()


async def test_an_execution_that_was_being_cancelled_when_its_worker_died_is_not_queued_again(
    worker: ScriptedWorker,
) -> None:
    async with opened(worker, recovery="auto") as session:
        execution = session.start(STUBBORN)
        await until_output(execution)
        cancelling = asyncio.create_task(execution.cancel())
        await turns_until(lambda: execution.state is pyrepl3.ExecutionState.CANCELLING)
        worker.process.kill()
        while execution.state is pyrepl3.ExecutionState.CANCELLING:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        await cancelling
        assert execution.state is pyrepl3.ExecutionState.FINISHED


async def test_a_value_that_does_not_decode_is_missing_not_fatal(worker: ScriptedWorker) -> None:
    @worker.script("weird")
    async def weird(run: Run) -> None:
        # A map whose key is a map: sound MessagePack, and no Python value.
        value = msgspec.Raw(b"\x81\x80\x01")
        run.send(Result(run.message.execution_id, "scripted", value=value, repr="Weird()"))
        await asyncio.Event().wait()

    async with opened(worker, config=brief()) as session:
        result = await session.execute("weird")
        assert (result.value, result.repr, result.truncated) == (None, "Weird()", True)


async def test_an_errors_every_part_reaches_the_caller(worker: ScriptedWorker) -> None:
    frame = Frame(filename="<cell 1>", lineno=3, name="f")
    cause = ExceptionData("KeyError", "'k'", ["a note"], [frame], ExceptionData("OSError", "deep"))
    member = ExceptionData("ValueError", "one of them")

    @worker.script("fails")
    async def fails(run: Run) -> None:
        run.send(
            Error(
                kind="compilation",
                exception="ExceptionGroup",
                message="many",
                execution_id=run.message.execution_id,
                notes=["n1", "n2"],
                frames=[frame],
                traceback="Traceback …\n",
                cause=cause,
                members=[member],
                suggestion="mended",
                mode="unknown",
                duration=0.5,
            )
        )
        await asyncio.Event().wait()

    async with opened(worker, config=brief()) as session:
        with pytest.raises(pyrepl3.ExecutionFailed) as failure:
            await session.execute("fails")
    result, error = failure.value.result, failure.value.error
    assert (result.mode, result.duration) == ("unknown", 0.5)
    assert (error.kind, error.type, error.message) == ("compilation", "ExceptionGroup", "many")
    assert (error.notes, error.frames, error.suggestion) == (("n1", "n2"), (frame,), "mended")
    assert error.cause is not None
    assert (error.cause.type, error.cause.notes, error.cause.frames) == ("KeyError", ("a note",), (frame,))
    assert error.cause.cause is not None
    assert str(error.cause.cause) == "OSError: deep"
    assert [str(member) for member in error.members] == ["ValueError: one of them"]
    assert str(failure.value) == "Traceback …\n"
    again = pickle.loads(pickle.dumps(failure.value))
    assert (again.result, str(again)) == (result, str(failure.value))


async def test_displays_are_in_the_result(worker: ScriptedWorker) -> None:
    @worker.script("shows")
    async def shows(run: Run) -> None:
        run.display({"text/html": "<b>1</b>"})
        run.display({"text/plain": "2"})

    async with opened(worker) as session:
        result = await session.execute("shows")
    assert [display.data for display in result.displays] == [{"text/html": "<b>1</b>"}, {"text/plain": "2"}]


async def test_a_store_that_cannot_be_used_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    with pytest.raises(pyrepl3.StoreError, match=r"no directory .*nowhere"):
        async with pyrepl3.open_session(store=tmp_path / "nowhere" / "state.db"):
            pass


async def test_who_asks_for_the_same_id_meanwhile_is_answered_in_their_own_way(
    worker: ScriptedWorker,
) -> None:
    """Both share one execution; whether a failure is raised is the affair of each."""
    async with opened(worker) as session, asyncio.TaskGroup() as group:
        raising = group.create_task(failure_of(session.execute(SLEEP, execution_id="step")))
        quiet = group.create_task(session.execute(SLEEP, execution_id="step", check=False))
        await asyncio.sleep(0)
        assert await session.cancel()
    assert raising.result().result.error == quiet.result().error


async def failure_of(result: Awaitable[pyrepl3.ExecutionResult]) -> pyrepl3.ExecutionFailed:
    with pytest.raises(pyrepl3.ExecutionFailed) as failed:
        await result
    return failed.value
