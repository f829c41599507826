"""A worker that floods its parent: what it sends is bounded in memory, and the other sessions go on."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.lying_sessions import gone, lying, undisturbed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def test_late_calls_of_an_execution_that_has_just_ended_call_no_host_function(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    """A thread may call at the moment in which its execution ends: no lie, and nobody waits for it."""
    called: list[object] = []
    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), capabilities={"f": called.append}) as lying_session,
    ):
        assert (await lying_session.execute("call after the end")).value == 42
        await lying_session.ping()
        assert (await lying_session.execute("honest")).value == 42
        assert lying_session.worker.incarnation == 1
        assert called == []


async def test_late_calls_without_end_are_a_lie(
    session: pyrepl3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrepl3_client._worker.message_guard._MAX_QUESTION_BYTES", 1_000_000)

    async def f() -> None:
        pass

    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), capabilities={"f": f}, recovery="none") as lying_session,
    ):
        assert (await lying_session.execute("call after the end without end")).value == 42
        with pytest.raises(pyrepl3.WorkerDied, match=r"asked 1,\d{3} times .* too much to record"):
            await lying_session.execute("honest")


@pytest.mark.parametrize("lie", ["ask without end", "call a lot"])
async def test_too_many_calls_to_record_are_a_lie(
    session: pyrepl3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    monkeypatch.setattr("pyrepl3_client._worker.message_guard._MAX_QUESTION_BYTES", 1_000_000)

    async def f() -> None:
        pass

    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), capabilities={"f": f}, recovery="none") as lying_session,
    ):
        pid = lying_session.worker.pid
        with pytest.raises(
            pyrepl3.WorkerDied, match=r"asked 1,[67]\d\d times in execution .* too much to record"
        ):
            await lying_session.execute(lie)
        assert gone(pid)


async def test_unanswered_calls_pause_reading(
    session: pyrepl3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrepl3_client._execution.backpressure._MAX_OPEN_CALLS", 10)
    called = 0
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def f() -> None:
        nonlocal called
        called += 1
        begun.set()
        await go_on.wait()

    async with (
        undisturbed(session) as sibling,
        pyrepl3.open_session(config=lying(tmp_path), capabilities={"f": f}) as lying_session,
    ):
        execution = lying_session.start("call a lot")
        await begun.wait()
        for _ in range(20):
            await sibling.next_answer()
        assert 0 < called < 5000, "no more than it takes to read once"
        go_on.set()
        assert (await execution.result()).value == 42
        assert called == 20_000


async def test_events_without_an_iteration_are_bounded(session: pyrepl3.Session, tmp_path: Path) -> None:
    async def f(data: bytes) -> None:
        assert len(data) == 100_000

    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), capabilities={"f": f}) as lying_session,
    ):
        execution = lying_session.start("call a lot at length")
        assert (await execution.result()).value == 42
        events = [event async for event in execution]
        kept = sum(len(bytes(event.args)) for event in events if isinstance(event, pyrepl3.Call))
        assert 1_000_000 < kept <= 8 * 1024 * 1024
        assert isinstance(events[-1], pyrepl3.Result)


async def test_answers_that_are_not_read_are_bounded(
    session: pyrepl3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrepl3_client._wire.connection._MAX_UNREAD_BYTES", 2_000_000)

    async def f() -> bytes:
        return b"x" * 100_000

    async with (
        undisturbed(session),
        pyrepl3.open_session(config=lying(tmp_path), capabilities={"f": f}, recovery="none") as lying_session,
    ):
        pid = lying_session.worker.pid
        with pytest.raises(pyrepl3.WorkerDied, match=r"asks and does not read: 2,\d\d\d,\d\d\d bytes"):
            await lying_session.execute("call and never read")
        assert gone(pid)


async def test_what_is_read_in_spite_of_a_hold_is_bounded(
    session: pyrepl3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is being stopped a worker is read, whoever holds; it is not for it to use that."""
    monkeypatch.setattr("pyrepl3_client._wire.connection._MAX_FORCED_BYTES", 1_000_000)
    go_on = asyncio.Event()
    begun = asyncio.Event()

    async def slow(_: pyrepl3.Output) -> None:
        begun.set()
        await go_on.wait()

    config = lying(tmp_path)
    async with (
        undisturbed(session),
        pyrepl3.open_session(config=config, recovery="none", on_output=slow) as lying_session,
    ):
        pid = lying_session.worker.pid
        execution = lying_session.start("write late without end")
        await begun.wait()
        with pytest.raises(pyrepl3.WorkerDied, match=r"bytes that are not taken, and did not answer"):
            await lying_session.ping(timeout=60.0)
        go_on.set()
        with pytest.raises(pyrepl3.WorkerDied):
            await execution.result()
        assert gone(pid)


async def test_late_output_without_end_disturbs_no_other_session(
    session: pyrepl3.Session, tmp_path: Path
) -> None:
    begun = asyncio.Event()
    async with (
        undisturbed(session) as sibling,
        pyrepl3.open_session(config=lying(tmp_path), on_output=lambda _: begun.set()) as lying_session,
    ):
        execution = lying_session.start("write late without end", check=False)
        await begun.wait()
        for _ in range(20):
            await sibling.next_answer()
        await execution.cancel()
        result = await execution.result()
        assert result.error is not None
        assert result.stdout == ""


async def test_letters_take_the_memory_of_a_text(session: pyrepl3.Session, tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=lying(tmp_path)) as lying_session:
        await lying_session.execute("honest")
        tracemalloc.start()
        try:
            result = await lying_session.execute("write letters")
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size < 2_000_000, "one object each would take 6 MB"
        assert result.stdout == "x" * 100_000


async def test_displays_have_a_bound_of_their_own(tmp_path: Path) -> None:
    config = lying(tmp_path, executor=pyrepl3.ExecutorConfig(max_display_bytes=50_000))
    async with pyrepl3.open_session(config=config) as lying_session:
        result = await lying_session.execute("show much")
        assert result.truncated
        held = sum(len(text) for display in result.displays for text in display.data.values())
        assert 1_000_000 < held < 1_200_000, "what a worker may be off by, and placeholders"
        assert "text/plain of 20,000 bytes cut" in result.displays[-1].data["text/plain"]
        assert (await lying_session.execute("honest")).truncated is False


async def test_floods_past_python_are_bounded(session: pyrepl3.Session, tmp_path: Path) -> None:
    config = lying(tmp_path, executor=pyrepl3.ExecutorConfig(max_output_bytes=50_000))
    async with undisturbed(session), pyrepl3.open_session(config=config) as lying_session:
        result = await lying_session.execute("write past Python")
        assert result.truncated
        assert 50_000 <= len(result.stdout) < 60_000
        assert (await lying_session.execute("write last words")).value == 42


async def test_a_long_reason_is_the_codes_own_affair(session: pyrepl3.Session, tmp_path: Path) -> None:
    async with undisturbed(session), pyrepl3.open_session(config=lying(tmp_path)) as lying_session:
        result = await lying_session.execute("a reason of a megabyte", check=False)
        assert result.error is not None
        assert len(result.error.message) == 10**6
        assert lying_session.worker.incarnation == 1
