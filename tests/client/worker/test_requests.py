"""Requests to a worker: each gets its own answer, or says why there is none."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._worker import requests
from pyrepl3_client.testing import ScriptedWorker
from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.messages import (
    Checkpoint,
    Checkpointed,
    Complete,
    Completions,
    Error,
    GetStats,
    Inspect,
    Inspection,
    Ping,
    Pong,
    Progress,
    Restore,
    Unsaved,
    Variable,
)
from tests.helpers.scripted_sessions import ONE, SLEEP, opened

pytestmark = pytest.mark.anyio


async def test_answers_in_another_order_reach_who_asked(worker: ScriptedWorker) -> None:
    worker.unanswered |= {Ping, Complete}
    async with opened(worker) as session:
        first, second = asyncio.create_task(session.ping()), asyncio.create_task(session.ping())
        last = await worker.wait_for(Ping, 2)
        worker.process.send(Pong(nonce=last.nonce, rss=2))
        assert (await second).rss == 2
        assert not first.done()
        worker.process.send(Pong(nonce=last.nonce - 1, rss=1))
        assert (await first).rss == 1


@pytest.mark.parametrize("what", ["ping", "stats", "variables", "complete", "inspect", "checkpoint"])
async def test_a_worker_that_does_not_answer_is_said_not_to(worker: ScriptedWorker, what: str) -> None:
    worker.unanswered |= {Ping, GetStats, Inspect, Complete, Checkpoint}
    asks = {
        "ping": lambda: session.ping(0.01),
        "stats": lambda: session.stats(timeout=0.01),
        "variables": lambda: session.variables(0.01),
        "complete": lambda: session.complete("x", timeout=0.01),
        "inspect": lambda: session.inspect("x", timeout=0.01),
        "checkpoint": lambda: session.checkpoint(timeout=0.01),
    }
    async with opened(worker) as session:
        execution = session.start(SLEEP, execution_id="e")
        with pytest.raises(TimeoutError, match=r"did not answer .* within 0.01 s \(running 'e'\)") as error:
            await asks[what]()
        assert isinstance(error.value, pyrepl3.WorkerUnresponsive)
        await execution.cancel()


async def test_the_bell_is_rung_for_what_is_answered_while_code_runs(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        await session.ping()
        await session.complete("x")
        assert worker.wakeup_signals == 2
        await session.checkpoint()
        assert worker.wakeup_signals == 2


async def test_an_answer_that_is_no_longer_awaited_is_dropped(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Ping)
    async with opened(worker) as session:
        with pytest.raises(TimeoutError):
            await session.ping(0.01)
        worker.process.send(Pong(nonce=1))
        assert (await session.execute(ONE)).value == 2


async def test_cursors_stand_at_the_end_unless_told(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        await session.complete("abc")
        await session.inspect("abc", 1)
        assert (await worker.wait_for(Complete)).cursor == 3
        assert (await worker.wait_for(Inspect)).cursor == 1


async def test_answers_are_given_as_they_are(worker: ScriptedWorker) -> None:
    worker.unanswered |= {Inspect, Complete}
    variable = Variable("x", "int", "1")
    async with opened(worker) as session:
        variables = asyncio.create_task(session.variables())
        asked = await worker.wait_for(Inspect)
        assert asked.code == ""
        worker.process.send(Inspection(request_id=asked.request_id, variables=[variable]))
        assert await variables == {"x": variable}
        completing = asyncio.create_task(session.complete("ab"))
        question = await worker.wait_for(Complete)
        answer = Completions(request_id=question.request_id, matches=["abs"], cursor_end=2)
        worker.process.send(answer)
        assert await completing == answer


async def test_a_checkpoint_is_kept_and_only_what_is_new_is_sent(worker: ScriptedWorker) -> None:
    worker.unanswered |= {Checkpoint, Restore}
    async with opened(worker) as session:
        first = asyncio.create_task(session.checkpoint("one"))
        assert (await worker.wait_for(Checkpoint)).known == []
        unsaved = [Unsaved("lock", "lock", "cannot be pickled")]
        worker.process.send(Checkpointed("one", b"names 1", {"d1": b"blob 1"}, unsaved, needs=["d1"]))
        assert (await first).unsaved == unsaved
        second = asyncio.create_task(session.checkpoint("two"))
        assert (await worker.wait_for(Checkpoint, 2)).known == ["d1"]
        worker.process.send(Checkpointed("two", b"names 2", {"d2": b"blob 2"}, needs=["d1", "d2"]))
        await second
        restoring = asyncio.create_task(session.restore("one"))
        restore = await worker.wait_for(Restore)
        assert (restore.data, restore.blobs) == (b"names 1", {"d1": b"blob 1"})
        restoring.cancel()


async def test_a_checkpoint_that_is_longer_than_a_frame_goes_in_parts(worker: ScriptedWorker) -> None:
    worker.unanswered |= {Checkpoint}
    worker.ready = msgspec.structs.replace(worker.ready, max_frame_bytes=10_000)
    async with opened(worker) as session:
        taking = asyncio.create_task(session.checkpoint("big"))
        for number in range(1, 4):
            asked = await worker.wait_for(Checkpoint, number)
            assert asked.known == [f"d{known}" for known in range(1, number)]
            data = b"names" if number == 3 else b""
            needs = ["d1", "d2", "d3"] if data else []
            worker.process.send(Checkpointed("big", data, {f"d{number}": bytes(4_000)}, needs=needs))
        assert (await taking).data == b"names"
        await session.restore("big")
        sent = [message for message in worker.received if isinstance(message, Restore)]
        assert [message.data for message in sent] == [b"", b"names"]
        together: dict[str, bytes] = {}
        for message in sent:
            assert len(encode(message)) <= 10_000
            together |= message.blobs
        assert together == {f"d{number}": bytes(4_000) for number in (1, 2, 3)}


async def test_the_shorter_of_two_limits_holds(worker: ScriptedWorker) -> None:
    worker.ready = msgspec.structs.replace(worker.ready, max_frame_bytes=5_000)
    async with opened(worker) as session:
        with pytest.raises(pyrepl3.ProtocolError, match="over 5000"):
            session.start("#" * 6_000)


async def test_checkpoints_have_names_of_their_own_by_default(worker: ScriptedWorker) -> None:
    async with opened(worker) as session:
        ids = {(await session.checkpoint()).checkpoint_id for _ in range(3)}
        assert len(ids) == 3
        with pytest.raises(ValueError, match=r"no checkpoint 'lost' in this session; there are: '"):
            await session.restore("lost")


async def test_a_question_that_the_worker_complains_about_fails(worker: ScriptedWorker) -> None:
    worker.unanswered.add(Checkpoint)
    async with opened(worker) as session:
        taking = asyncio.create_task(session.checkpoint("big"))
        await worker.wait_for(Checkpoint)
        worker.process.send(
            Error(kind="protocol", exception="LocalProtocolError", message="big: over the limit")
        )
        with pytest.raises(pyrepl3.ProtocolError, match="over the limit"):
            await taking


async def test_another_complaint_is_logged(worker: ScriptedWorker, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(worker) as session:
        with caplog.at_level(logging.WARNING, "pyrepl3.worker"):
            worker.process.send(Error(kind="protocol", exception="E", message="something is odd"))
            await session.ping()
    assert "something is odd" in caplog.text


@pytest.mark.parametrize(
    ("code", "cursor"), [("imp", 2.0), ("imp", "2"), ("imp", True), (b"imp", 2), (None, None)]
)
async def test_a_place_that_is_none_is_refused(worker: ScriptedWorker, code: Any, cursor: Any) -> None:
    async with opened(worker) as session:
        for ask in (session.complete, session.inspect):
            with pytest.raises(TypeError, match="cursor" if code == "imp" else "code"):
                await ask(code, cursor)
        assert (await session.execute(ONE)).value == 2


async def test_a_place_beyond_an_end_of_the_code_is_that_end(worker: ScriptedWorker) -> None:
    worker.unanswered |= {Complete}
    async with opened(worker) as session:
        for cursor in (-5, 10**30):
            asking = asyncio.create_task(session.complete("imp", cursor))
            asked = await worker.wait_for(Complete, 1 if cursor < 0 else 2)
            assert asked.cursor == (0 if cursor < 0 else 3)
            worker.process.send(Completions(request_id=asked.request_id))
            await asking


async def test_a_worker_that_tells_that_it_is_at_it_is_waited_for(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.unanswered.add(Checkpoint)
    seen: list[Progress] = []
    told = Progress("c", "importing", "pandas", 1, 2)
    async with opened(worker) as session:
        handle = session._checkpoints._worker()  # pyright: ignore[reportPrivateUsage]
        assert handle is not None

        def ask(silence: float) -> asyncio.Task[Checkpointed]:
            request = Checkpoint(checkpoint_id="c")
            return asyncio.create_task(
                handle.requests.ask_patiently(request, Checkpointed, "c", silence, seen.append)
            )

        waiting = ask(60.0)
        await worker.wait_for(Checkpoint)
        worker.process.send(told)
        worker.process.send(Checkpointed(checkpoint_id="c", data=b"d"))
        assert (await waiting).data == b"d"
        assert seen == [told]
        with pytest.raises(pyrepl3.WorkerUnresponsive, match=r"nothing new for 0\.01 s"):
            await ask(0.01)
        monkeypatch.setattr(requests, "MAX_SAME_PROGRESS", 0.0)
        stuck = ask(0.3)
        worker.process.send(told)
        with pytest.raises(pyrepl3.WorkerUnresponsive, match="the last it told was importing pandas"):
            await stuck
