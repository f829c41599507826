"""The ladder: ask, ask again, kill; by time or by asking again; and deadlines."""

import asyncio

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ExecutorConfig, SessionState
from pyrepl3_client._execution.backpressure import FlowControl
from pyrepl3_client._execution.cancellation import CancelActions, CancellationLadder
from pyrepl3_client._execution.handlers import NO_HANDLERS
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.protocol import Spec
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import Cancel, CancelReason, Execute
from tests.helpers.scripted_sessions import (
    ONE,
    SHORT,
    SLEEP,
    STUBBORN,
    SWALLOW,
    brief,
    opened,
    until_output,
)

pytestmark = pytest.mark.anyio


def cancels(worker: ScriptedWorker) -> list[Cancel]:
    return [message for message in worker.received if isinstance(message, Cancel)]


async def test_the_first_rung_is_one_frame_and_one_ring(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP, execution_id="e")
        await until_output(execution)
        before = worker.wakeup_signals
        await execution.cancel("interrupt")
        assert cancels(worker) == [Cancel("e", "interrupt")]
        assert worker.wakeup_signals == before + 1
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await execution.result()


async def test_code_that_swallows_the_first_is_asked_again_after_a_grace(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        execution = session.start(SWALLOW, execution_id="e")
        await until_output(execution)
        await execution.cancel()
        assert cancels(worker) == [Cancel("e"), Cancel("e")]
        assert (await session.execute(ONE)).value == 2


async def test_asking_again_climbs_at_once(worker: ScriptedWorker) -> None:
    async with opened(worker, config=pyrepl3.WorkerConfig(cancel_grace=600)) as session:
        execution = session.start(SWALLOW)
        await until_output(execution)
        first = asyncio.create_task(execution.cancel())
        await worker.wait_for(Cancel)
        await session.ping()
        await execution.cancel()
        await first
        assert len(cancels(worker)) == 2


async def test_code_that_swallows_everything_is_killed(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        execution = session.start(STUBBORN, execution_id="e")
        queued = session.start(ONE)
        await until_output(execution)
        await execution.cancel()
        with pytest.raises(pyrepl3.WorkerDied, match=r"SIGKILL.*'e' did not stop \(cancelled\)") as death:
            await execution.result()
        assert death.value.signal == 9
        assert death.value.running == ("e", queued.execution_id)
        with pytest.raises(pyrepl3.WorkerDied):
            await queued.result()
        assert session.state is SessionState.DEAD


async def test_nothing_is_climbed_once_it_is_over(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        execution = session.start(SLEEP)
        await until_output(execution)
        await execution.cancel()
        await asyncio.sleep(3 * SHORT)  # what would happen after the graces must not
        assert len(cancels(worker)) == 1
        assert session.state is SessionState.READY


async def test_a_result_in_spite_of_a_cancel_is_a_result(worker: ScriptedWorker) -> None:
    @worker.script("handles the interrupt")
    async def handles(run: Run) -> str:
        run.print("ready")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "handled"
        raise AssertionError

    async with opened(worker) as session:
        execution = session.start("handles the interrupt")
        await until_output(execution)
        await execution.cancel("interrupt")
        assert (await execution.result()).value == "handled"


async def test_a_session_cancels_what_runs(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        assert await session.cancel() is False
        execution, queued = session.start(SLEEP), session.start(ONE)
        assert await session.cancel() is True
        assert execution.state.value == "finished"
        assert (await queued.result()).value == 2


async def test_a_queued_execution_is_not_worth_a_workers_death(worker: ScriptedWorker) -> None:
    """What runs is in a C call and hears nothing; cancelling what waits behind it must not kill it."""
    worker.unanswered.add(Cancel)
    async with opened(worker, config=brief()) as session:
        running = session.start(SLEEP)
        queued = session.start(ONE, execution_id="queued")
        await queued.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled, match="before it began"):
            await queued.result()
        assert session.state is SessionState.READY
        worker.unanswered.clear()
        # The worker, when it gets round to it, may still run the one that was given up.
        await running.cancel()
        assert (await session.execute(ONE)).value == 2


async def test_one_that_was_given_up_and_then_runs_for_ever_is_stopped(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        running, queued = session.start(SLEEP), session.start(STUBBORN)
        worker.unanswered.add(Cancel)
        await queued.cancel()
        worker.unanswered.clear()
        await running.cancel()
        waiting = session.start(ONE)
        with pytest.raises(pyrepl3.WorkerDied, match="did not stop"):
            await waiting.result()


async def test_one_that_was_given_up_is_not_run_again_when_the_worker_dies(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief(), recovery="auto") as session:
        running, queued = session.start(SLEEP, execution_id="r"), session.start(ONE, execution_id="q")
        await worker.wait_for(Execute, 2)
        worker.unanswered.add(Cancel)
        await queued.cancel()
        worker.unanswered.clear()
        worker.process.exit(signal=9)
        await worker.wait_for(Execute, 3)
        await running.cancel()
        assert (await session.execute(ONE, execution_id="last")).value == 2
        sent = [message.execution_id for message in worker.received if isinstance(message, Execute)]
        assert sent == ["r", "q", "r", "last"]


async def test_cancelling_the_awaiting_task_cancels_the_execution(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        task = asyncio.create_task(session.execute(SLEEP))
        await worker.wait_for(Execute)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(cancels(worker)) == 1
        assert (await session.ping()).current_execution is None


async def test_after_a_cancelled_task_the_worker_is_free_or_dead(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        task = asyncio.create_task(session.execute(STUBBORN))
        await worker.wait_for(Execute)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.state is SessionState.DEAD


async def test_cancelling_the_task_again_climbs_at_once(worker: ScriptedWorker) -> None:
    async with opened(worker, config=pyrepl3.WorkerConfig(cancel_grace=600)) as session:
        task = asyncio.create_task(session.execute(SWALLOW))
        await worker.wait_for(Execute)
        await session.ping()
        task.cancel()
        await worker.wait_for(Cancel)
        await session.ping()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(cancels(worker)) == 2


async def test_asyncios_timeout_is_a_timeout(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await session.execute(SLEEP)
        assert (await session.execute(ONE)).value == 2


async def test_anyios_cancel_scope_is_left_when_the_worker_is_free(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        with anyio.move_on_after(0.01) as scope:
            await session.execute(SWALLOW)
        assert scope.cancelled_caught
        assert len(cancels(worker)) == 2, "the scope cancels in every turn of the loop, which is no request"
        assert (await session.execute(ONE)).value == 2


async def test_the_client_is_the_backstop_of_a_timeout(worker: ScriptedWorker) -> None:
    """A worker that does not get round to its clock is reminded, and then killed."""

    @worker.script("ignores its timeout")
    async def ignores(run: Run) -> None:
        await worker.script_for(STUBBORN)(run)

    async with opened(worker, config=brief()) as session:
        with pytest.raises(pyrepl3.WorkerDied, match=r"did not stop \(timeout\)"):
            await session.execute("ignores its timeout", timeout=0.01)
        assert {cancel.reason for cancel in cancels(worker)} == {"timeout"}


async def test_the_clock_of_a_queued_execution_starts_with_its_turn(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        running = session.start(SLEEP)
        queued = session.start(ONE, timeout=0.01)
        await asyncio.sleep(0.01 + 4 * SHORT)
        assert not cancels(worker)
        await running.cancel()
        assert (await queued.result()).value == 2


async def test_the_configured_time_limit_has_a_backstop_too(worker: ScriptedWorker) -> None:
    config = brief(executor=ExecutorConfig(max_execution_time=0.01))
    async with opened(worker, config=config) as session:
        with pytest.raises(pyrepl3.ExecutionTimeout):
            await session.execute(SWALLOW)
        assert [cancel.reason for cancel in cancels(worker)] == ["timeout", "timeout"]


async def test_a_backstop_is_forgotten_with_its_execution(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief()) as session:
        await session.execute(ONE, timeout=0.01)
        running = session.start(SLEEP)
        await asyncio.sleep(0.01 + 4 * SHORT)
        assert not cancels(worker)
        await running.cancel()


class Queue:
    """Owns executions, and has none that it could ask anything of."""

    def __init__(self) -> None:
        self.unsettled: dict[ExecutionRecord, None] = {}

    def flow_control(self) -> FlowControl:
        raise AssertionError

    def request_cancel(self, execution: ExecutionRecord, reason: CancelReason) -> None:
        raise AssertionError


async def test_one_that_is_over_for_its_caller_alone_is_stopped_at_its_deadline_too() -> None:
    """A store may fail under an execution: its caller has the error, and its worker still runs the code."""
    steps: list[str] = []
    killed = asyncio.Event()

    def kill(reason: str) -> None:
        steps.append("kill")
        killed.set()

    record = ExecutionRecord(Queue(), "e", Spec("x"), SHORT, NO_HANDLERS, check=True, keep=False)
    actions = CancelActions(
        ask=lambda _, reason: steps.append(reason),
        wake=lambda: None,
        give_up=lambda _, reason: steps.append(f"give up: {reason}"),
        kill=kill,
        first=lambda: record,
        is_paused=lambda _: False,
        cpu_seconds=lambda: None,
    )
    ladder = CancellationLadder(actions, SHORT, SHORT)
    record.move(ExecutionState.RUNNING)
    ladder.start_timeout(record, SHORT)
    record.mark_done()
    await asyncio.wait_for(killed.wait(), 5)
    assert steps == ["timeout", "timeout", "kill"]
