"""A worker that lies is killed, and says why; the other sessions of its parent never hear of it."""

from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.lying_sessions import gone, lying, undisturbed
from tests.helpers.real_sessions import when_back

pytestmark = pytest.mark.anyio

SHORT = pyrepl3.ExecutorConfig(max_output_bytes=100_000)
LIES = {
    "end a stranger": r"ended execution 'stranger', which is not in flight",
    "fail a stranger": r"ended execution 'stranger', which is not in flight",
    "end an ended one": r"ended execution 'first', which is not in flight",
    "end a long stranger": r"ended execution 's{100}'… \(1,000,000 characters\), which is not",
    "end b": r"ended execution 'b', which has not begun",
    "fail b": r"ended execution 'b', which has not begun",
    "write as a stranger": r"wrote as execution 'stranger', which is not in flight",
    "write as b": r"wrote as execution 'b', which has not begun",
    "write without end": r"bytes of output of execution 'a', past max_output_bytes=100000",
    "show as a stranger": r"showed something as execution 'stranger', which is not",
    "call what was not offered": r"called 'os.system', which it was not offered; it was: f",
    "call as a stranger": r"asked as execution 'stranger', which is not in flight",
    "call as b": r"asked as execution 'b', which has not begun",
    "call twice": r"asked 'a:f:1' twice",
    "call twice otherwise": r"asked 'a:f:1' twice",
    "call under a foreign id": r"'b:f:1' is no id of a call of 'f' in 'a'",
    "call under a long id": r"'x{100}'… \(1,000,000 characters\) is no id",
    "call under no number": r"'a:f:1.x' is no id",
    "call with a map": r"arguments of its call 'a:f:1' are no array and map",
    "ask twice": r"asked 'a:input:1' twice",
    "ask as a stranger": r"asked as execution 'stranger', which is not",
    "pong": r"its pong '7' answers nothing that we asked",
    "stats": r"its stats '7' answers nothing",
    "completions": r"its completions '7' answers nothing",
    "inspection": r"its inspection '7{100}'… \(1,000,000 characters\) answers nothing",
    "checkpointed": r"its checkpointed 'c' answers nothing",
    "restored": r"its restored 'c' answers nothing",
    "response": r"its response 'r7' answers nothing",
    "chunk": r"a chunk of 'r7', of which none are to come",
    "ready": r"said ready twice",
    "complain": r"complains without end, as of woe",
    "no length": r"frame length 0",
    "too long": r"frame length 2147483647",
    "no message": r"a frame is no message",
    "unknown type": r"Invalid value 'no'",
    "long unknown type": r"Invalid value 'n{100}",
    "invalid UTF-8": r"a frame is no message",
    "deep": r"a frame is no message",
    "deep value": r"a frame is no message: .*depth",
    "call with deep data": r"a frame is no message: .*depth",
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_ends_the_lying_worker_alone(
    session: pyrepl3.Session, tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    called: list[object] = []
    async with (
        undisturbed(session),
        pyrepl3.open_session(
            config=lying(tmp_path, executor=SHORT), capabilities={"f": called.append}, recovery="none"
        ) as lying_session,
    ):
        assert (await lying_session.execute("honest", execution_id="first")).value == 42
        pid = lying_session.worker.pid
        execution = lying_session.start(lie, execution_id="a")
        queued = lying_session.start("honest", execution_id="b")
        with pytest.raises(pyrepl3.WorkerDied, match=LIES[lie]) as death:
            await execution.result()
        with pytest.raises(pyrepl3.WorkerDied):
            await queued.result()
        assert isinstance(death.value.__cause__, pyrepl3.ProtocolError)
        assert death.value.certificate is not None
        assert death.value.certificate.cause.startswith("killed by us: it broke the protocol: ")
        assert len(str(death.value)) < 3000, "a lying worker does not fill the log"
        assert gone(pid)
        assert len(called) <= 1
    assert sum(len(record.getMessage()) for record in caplog.records) < 100_000


async def test_a_second_end_is_a_lie_and_the_first_one_counts(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), recovery="none") as lying_session,
    ):
        assert (await lying_session.execute("end twice", execution_id="a")).value == 42
        with pytest.raises(pyrepl3.WorkerDied, match="ended execution 'a', which is not in flight"):
            await lying_session.execute("honest")


STARTS = {
    "never ready": r"not ready within 0\.5 seconds",
    "half ready": r"not ready within 0\.5 seconds",
    "another protocol": r"it speaks protocol 3, and we speak 2",
    "tiny frames": r"agrees to frames of 100 bytes only",
    "confined": r"system_calls, .*files, processes, network of its confinement are in force, which",
    "talks early": r"sent pong before it was ready",
    "refuses": r"no no no .*… \(3,000,000 characters\)",
}


@pytest.mark.parametrize("how", STARTS)
async def test_a_worker_that_begins_with_a_lie_is_no_worker(
    session: pyrepl3.Session, tmp_path: Path, how: str
) -> None:
    # Time enough for an honest one to say something, on a machine that is busy.
    slow = 0.5 if how.endswith("ready") else 30.0
    async with undisturbed(session):
        with pytest.raises(pyrepl3.SpawnError, match=STARTS[how]) as death:
            async with pyrepl3.open_session(config=lying(tmp_path, how, spawn_timeout=slow)):
                raise AssertionError("it was taken for a worker")
        assert len(str(death.value)) < 3000


STALLS = {
    "half a length": r"stopped inside a frame, after 2 bytes of it",
    "a length and nothing": r"stopped inside a frame, after 4 bytes of it",
    "half a frame": r"stopped inside a frame, after 1,0\d\d,\d\d\d bytes of it, for 0\.2 seconds",
    "byte by byte": r"stopped inside a frame, after \d+ bytes",
}


@pytest.mark.parametrize("lie", STALLS)
async def test_a_worker_that_stops_in_the_middle_of_a_frame_is_killed(
    session: pyrepl3.Session, tmp_path: Path, lie: str
) -> None:
    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path, stall_timeout=0.2), recovery="none") as lying_session,
    ):
        pid = lying_session.worker.pid
        with pytest.raises(pyrepl3.WorkerDied, match=STALLS[lie]) as death:
            await lying_session.execute(lie)
        assert isinstance(death.value.__cause__, pyrepl3.ProtocolError)
        assert gone(pid)


async def test_an_idle_worker_that_stops_in_the_middle_of_a_frame_is_replaced(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    back: list[pyrepl3.Recovery] = []
    config = lying(tmp_path, stall_timeout=0.2)
    async with (
        undisturbed(session),
        pyrepl3.open_session(
            config=config, recovery="checkpoint", on_recovery=when_back(back.append)
        ) as lying_session,
    ):
        await lying_session.execute("half a frame, idle")
        # Its next message is swallowed by the frame that does not end.
        assert (await lying_session.execute("honest")).value == 42
        assert "stopped inside a frame" in str(back[0].cause)
        assert lying_session.worker.incarnation == 2


@pytest.mark.parametrize("lie", ["close", "close in a frame"])
async def test_a_worker_that_closes_its_end_and_lives_on_is_killed(
    session: pyrepl3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    monkeypatch.setattr("pyrepl3_client._wire.connection._EXIT_AFTER_EOF_SECONDS", 0.01)
    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), recovery="none") as lying_session,
    ):
        pid = lying_session.worker.pid
        with pytest.raises(pyrepl3.WorkerDied, match="closed its end of the connection and lived on"):
            await lying_session.execute(lie)
        assert gone(pid)


CHECKPOINTS = {
    "empty parts": r"is empty and not the last",
    "old parts": r"contents that we have already",
    "missing parts": r"needs 2 contents that it never sent",
}


@pytest.mark.parametrize("how", CHECKPOINTS)
async def test_a_checkpoint_that_comes_to_no_end_is_a_lie(
    session: pyrepl3.Session, tmp_path: Path, how: str
) -> None:
    config = lying(tmp_path, how, max_checkpoint_bytes=1_000_000)
    async with undisturbed(session), pyrepl3.open_session(config=config, recovery="none") as lying_session:
        pid = lying_session.worker.pid
        with pytest.raises(pyrepl3.ProtocolError, match=CHECKPOINTS[how]):
            await lying_session.checkpoint("c")
        with pytest.raises(pyrepl3.WorkerDied, match=CHECKPOINTS[how]):
            await lying_session.execute("honest")
        assert gone(pid)


async def test_a_checkpoint_without_end_is_refused_where_it_is_too_much(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    """It may be an honest one of a large namespace; nothing more of it comes without being asked for."""
    config = lying(tmp_path, "endless parts", max_checkpoint_bytes=1_000_000)
    async with undisturbed(session), pyrepl3.open_session(config=config, recovery="none") as lying_session:
        with pytest.raises(pyrepl3.StoreError, match=r"more than 1,000,000 bytes \(max_checkpoint_bytes\)"):
            await lying_session.checkpoint("c")
        assert (await lying_session.execute("honest")).value == 42


async def test_what_makes_its_worker_lie_is_not_run_again_and_the_session_goes_on(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    config = lying(tmp_path)
    async with undisturbed(session), pyrepl3.open_session(config=config, max_attempts=2) as lying_session:
        await lying_session.execute("honest")
        with pytest.raises(pyrepl3.WorkerDied, match="its pong '7' answers nothing") as death:
            await lying_session.execute("pong")
        assert death.value.certificate is not None
        assert "its pong '7' answers nothing" in death.value.certificate.cause
        assert (death.value.attempts, death.value.certificate.own_doing) == (1, True)
        assert (await lying_session.execute("honest")).value == 42
        assert [bool(recovery.cause) for recovery in lying_session.recoveries] == [True]
        assert lying_session.worker.incarnation == 2


async def test_a_worker_that_refuses_to_restore_is_replaced_and_the_session_goes_on(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    config = lying(tmp_path, "refuses to restore")
    async with undisturbed(session), pyrepl3.open_session(config=config, max_attempts=2) as lying_session:
        await lying_session.execute("honest")
        await lying_session.checkpoint("c")
        with pytest.raises(pyrepl3.WorkerDied):
            await lying_session.execute("pong")
        assert (await lying_session.execute("honest")).value == 42
        assert any("restor" in skipped.reason for skipped in lying_session.recoveries[-1].skipped)


@pytest.mark.parametrize("named", ["none", "some", "all"])
async def test_a_task_of_a_cell_long_ago_may_ask(named: str) -> None:
    """However the cells after it are named: ids are remembered by number, which need not count upwards."""
    asked: list[str] = []
    old = {"none": [None, None], "some": [None, "job-9"], "all": ["job-9", "other"]}[named]
    async with pyrepl3.open_session(capabilities={"f": asked.append}, recovery="none") as session:
        await session.execute("import asyncio; go = asyncio.Event(); tasks = []")
        for number, execution_id in enumerate(old):
            code = (
                f"async def late(): await go.wait(); f('{number}')\ntasks.append(asyncio.create_task(late()))"
            )
            await session.execute(code, execution_id=execution_id)
        names = {"none": "", "some": "job-3 job-1", "all": "x y job-2 other7"}[named].split()
        later = [session.start("1", execution_id=name) for name in names]
        later += [
            session.start("2", execution_id=f"job-{1000 - n}" if named == "all" else None) for n in range(200)
        ]
        for execution in later:
            await execution.result()
        await session.execute("go.set(); await asyncio.gather(*tasks)")
    assert sorted(asked) == ["0", "1"]
