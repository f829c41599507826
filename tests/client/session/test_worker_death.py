"""What a worker's end does to those who wait, and what a restart brings back."""

import asyncio
import contextvars
import pickle
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SessionState
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.messages import Error, Hello, Ping, Ready, Result, Shutdown
from tests.helpers.frames import framed
from tests.helpers.scripted_sessions import ONE, SLEEP, STUBBORN, brief, opened, turns_until, until_output

pytestmark = pytest.mark.anyio


async def test_everything_in_flight_is_told(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Ping)
    async with opened(worker) as session:
        first, second = session.start(SLEEP, execution_id="a"), session.start(ONE, execution_id="b")
        await until_output(first)
        ping = asyncio.create_task(session.ping())
        await worker.wait_for(Ping)
        worker.process.write_stderr("first words\nlast words\n")
        worker.process.exit(signal=11)
        errors = await asyncio.gather(first.result(), second.result(), ping, return_exceptions=True)
        for error in errors:
            assert isinstance(error, pyrepl3.WorkerDied)
            assert (error.exit_code, error.signal, error.incarnation) == (None, 11, 1)
            assert error.running == ("a", "b")
            assert error.stderr == "first words\nlast words"
            for part in (
                "SIGSEGV",
                "running: a, b",
                "last words",
                session.session_id,
                str(session.worker.pid),
            ):
                assert part in str(error)
        assert len({id(error) for error in errors}) == 3, "each has its own, and its own traceback"
        assert str(pickle.loads(pickle.dumps(errors[0]))) == str(errors[0])


async def test_what_was_said_before_the_end_counts(worker: ScriptedWorker) -> None:
    @worker.script("says it and dies")
    async def dies(run: Run) -> None:
        run.print("printed ")
        run.write(b"written")
        run.send(Result(run.message.execution_id, "scripted", repr="done"))
        worker.process.exit(0)
        await asyncio.Event().wait()

    async with opened(worker) as session:
        result = await session.execute("says it and dies")
        assert (result.repr, result.stdout) == ("done", "printed written")
        with pytest.raises(pyrepl3.WorkerDied, match="exit code 0"):
            await session.execute(ONE)


async def test_an_idle_workers_death_is_noticed(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        worker.process.exit(7)
        await turns_until(lambda: session.state is not SessionState.READY)
        assert session.state is SessionState.DEAD
        for asked in (session.ping, session.stats, session.variables, session.checkpoint):
            with pytest.raises(pyrepl3.WorkerDied, match="exit code 7"):
                await asked()


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\0\0\0\0", "frame length 0"),
        (b"\xff\xff\xff\xff", "frame length 4294967295"),
        (framed(b"\x80"), "a frame is no message"),
        (framed(b"\x81\xa4type\xa5hello"), "Invalid value 'hello'"),
        (encode(Result("stranger", "m")), "'stranger', which is not in flight"),
        (encode(Ready(protocol=PROTOCOL, pid=1, python="", max_frame_bytes=5000)), "ready twice"),
    ],
    ids=["no length", "too long", "no message", "a message to the worker", "nobody's result", "second ready"],
)
async def test_a_worker_that_breaks_the_protocol_is_ended(
    worker: ScriptedWorker, garbage: bytes, reason: str
) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP)
        await until_output(execution)
        worker.process.send_bytes(garbage)
        with pytest.raises(pyrepl3.WorkerDied, match=reason) as death:
            await execution.result()
        assert isinstance(death.value.__cause__, pyrepl3.ProtocolError)
        assert worker.process.reap().signal == 9
        await session.restart()
        assert (await session.execute(ONE)).value == 2


async def test_whole_messages_before_garbage_count_and_the_garbage_is_noticed_at_once(
    worker: ScriptedWorker,
) -> None:
    async with opened(worker) as session:
        execution = session.start(SLEEP, execution_id="e")
        await until_output(execution)
        worker.process.send_bytes(encode(Result("e", "m", repr="made it")) + b"\0\0\0\0")
        assert (await execution.result()).repr == "made it"
        assert worker.process.reap().signal == 9


async def test_a_worker_that_closes_its_wire_and_lives_on_is_ended(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrepl3_client._wire.connection._EXIT_AFTER_EOF_SECONDS", 0.01)
    async with opened(worker) as session:
        execution = session.start(SLEEP)
        await until_output(execution)
        worker.process.close_output()
        with pytest.raises(pyrepl3.WorkerDied, match="closed its end of the connection and lived on"):
            await execution.result()


# --- restart ------------------------------------------------------------------------------------------


async def test_a_restart_gives_a_fresh_worker_and_keeps_the_session(worker: ScriptedWorker) -> None:
    async with opened(worker, session_id="s") as session:
        running = session.start(SLEEP)
        await until_output(running)
        await session.restart()
        with pytest.raises(pyrepl3.WorkerDied, match="the session was restarted"):
            await running.result()
        assert session.worker.incarnation == 2
        assert [m.incarnation for m in worker.received if isinstance(m, Hello)] == [1, 2]
        assert worker.processes[0].ended
        assert (await session.execute(ONE)).value == 2


async def test_what_a_worker_says_of_abandoned_executions_is_no_breach(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Shutdown)
    async with opened(worker) as session:
        running = session.start(SLEEP, execution_id="e")
        await until_output(running)
        process = worker.process
        process.ignores_eof = True
        restart = asyncio.create_task(session.restart())
        await worker.wait_for(Shutdown)
        process.send(Error("cancelled", "CancelledError", "", execution_id="e"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not process.ended
        process.exit(0)
        await restart


async def test_host_functions_see_the_first_context_after_a_restart_too(worker: ScriptedWorker) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    @worker.script("calls")
    async def calls(run: Run) -> Any:
        return await run.call("f")

    async def f() -> str:
        return user.get()

    async def restart_as_another() -> None:
        user.set("somebody else")
        await session.restart()

    user.set("Ada")
    async with opened(worker, capabilities={"f": f}) as session:
        await asyncio.create_task(restart_as_another())
        assert (await session.execute("calls")).value == "Ada"


async def test_a_worker_that_does_not_end_by_itself_is_ended_for_a_restart(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Shutdown)
    async with opened(worker, config=brief()) as session:
        running = session.start(STUBBORN)
        await until_output(running)
        worker.process.ignores_eof = True
        await session.restart()
        assert worker.processes[0].reap().signal == 9
        assert (await session.execute(ONE)).value == 2


async def test_restarts_at_once_are_one_after_the_other(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        await asyncio.gather(session.restart(), session.restart())
        assert session.worker.incarnation == 3
        assert (await session.execute(ONE)).value == 2


async def test_nothing_can_be_submitted_during_a_restart(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        restart = asyncio.create_task(session.restart())
        await asyncio.sleep(0)
        with pytest.raises(pyrepl3.WorkerDied, match="getting a new worker"):
            session.start(ONE)
        await restart


async def test_a_restart_that_fails_leaves_a_dead_session_that_can_try_again(worker: ScriptedWorker) -> None:
    async with opened(worker, config=brief(spawn_timeout=0.05)) as session:
        worker.unanswered.add(Hello)
        with pytest.raises(pyrepl3.SpawnError, match=r"not ready within 0.05 seconds"):
            await session.restart()
        assert session.state is SessionState.DEAD
        with pytest.raises(pyrepl3.WorkerDied):
            await session.execute(ONE)
        worker.unanswered.clear()
        await session.restart()
        assert (await session.execute(ONE)).value == 2


async def test_a_cancelled_restart_leaves_a_dead_session(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        worker.unanswered.add(Hello)
        restart = asyncio.create_task(session.restart())
        await worker.wait_for(Hello, 2)
        restart.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restart
        assert session.state is SessionState.DEAD
        assert worker.process.ended


async def test_a_session_can_be_closed_during_a_restart(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        worker.unanswered.add(Hello)
        restart = asyncio.create_task(session.restart())
        await worker.wait_for(Hello, 2)
        await session.close()
        with pytest.raises((pyrepl3.SessionClosed, pyrepl3.SpawnError)):
            await restart
        assert session.state is SessionState.CLOSED
        with pytest.raises(pyrepl3.SessionClosed):
            await session.restart()


async def test_checkpoints_outlive_a_restart(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        await session.checkpoint("before")
        await session.restart()
        assert (await session.restore("before")).checkpoint_id == "before"
