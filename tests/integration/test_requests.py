"""Requests by kind on real workers."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._session.queries import ask_worker
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.transfers import RequestRefused
from pyrepl3_schemas.messages import Ping, Pong
from tests.helpers.real_sessions import PATIENCE, quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def test_a_kind_that_the_worker_does_not_know_is_named(shared: pyrepl3.Session) -> None:
    worker = await shared._ready_worker()  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(RequestRefused, match="no requests of kind 'no such'") as refused:
        await worker.requests.by_kind.ask("no such", {"a": 1}, 10)
    assert refused.value.exception == "LookupError"


QUESTIONS: dict[str, Callable[[pyrepl3.Session], Awaitable[Any]]] = {
    "ping": lambda session: session.ping(PATIENCE),
    "stats": lambda session: session.stats(PATIENCE),
    "complete": lambda session: session.complete("kep", timeout=PATIENCE),
    "inspect": lambda session: session.inspect("kept", timeout=PATIENCE),
    "is_complete": lambda session: session.is_complete("if kept:", PATIENCE),
    "variables": lambda session: session.variables(PATIENCE),
    "get": lambda session: session.get("kept"),
}


async def test_a_question_that_a_worker_dies_over_is_answered_by_the_next() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("kept = [1]")
        for name, ask in QUESTIONS.items():
            before = session.worker
            os.kill(before.pid, signal.SIGSTOP)
            task = asyncio.ensure_future(ask(session))
            await asyncio.sleep(0)  # it has been sent, to a worker that cannot answer
            os.kill(before.pid, signal.SIGKILL)
            with anyio.fail_after(PATIENCE):
                answer = await task
            assert session.worker.incarnation == before.incarnation + 1, name
            if name == "get":
                assert answer == [1]
            if name == "variables":
                assert answer["kept"].repr == "[1]"


async def test_a_question_that_every_worker_dies_over_ends() -> None:
    asked: list[int] = []

    async def deadly(worker: WorkerHandle) -> Pong:
        asked.append(worker.pid)
        os.kill(worker.pid, signal.SIGSTOP)
        answer = asyncio.ensure_future(worker.requests.ask(Ping(nonce=1), Pong, "1", PATIENCE, urgent=True))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        return await answer

    async with pyrepl3.open_session(config=quick()) as session:
        with anyio.fail_after(PATIENCE), pytest.raises(pyrepl3.WorkerDied):
            await ask_worker(session._ready_worker, deadly)  # pyright: ignore[reportPrivateUsage]
        assert len(set(asked)) == len(asked) == 2
        assert (await session.execute("1")).value == 1


async def test_a_question_to_a_session_that_does_not_come_back_says_what_its_worker_died_of() -> None:
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        os.kill(session.worker.pid, signal.SIGSTOP)
        task = asyncio.ensure_future(session.inspect("x", timeout=PATIENCE))
        await asyncio.sleep(0)
        os.kill(session.worker.pid, signal.SIGKILL)
        with anyio.fail_after(PATIENCE), pytest.raises(pyrepl3.WorkerDied, match="SIGKILL"):
            await task
