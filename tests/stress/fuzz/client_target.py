"""Our client's sessions, with a scripted worker that says what it should not.

Whatever comes, each execution and each request ends: with an outcome, or with an error of the client's
own tree. Nothing reaches the loop's exception handler; no task and no fd is left.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any, Final

from msgspec import Raw

import pyrepl3_client as pyrepl3
from pyrepl3_client import testing
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.codec import encode, encode_value
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.messages import (
    Call,
    Checkpoint,
    Checkpointed,
    Complete,
    Completions,
    Display,
    Error,
    ExceptionData,
    Frame,
    FromWorker,
    GetStats,
    Input,
    Inspect,
    Inspection,
    Output,
    OutputRest,
    Ping,
    Pong,
    Ready,
    Restored,
    Result,
    Variable,
)
from tests.stress.fuzz.decoder_target import decode
from tests.stress.fuzz.mutations import (
    Case,
    Corpus,
    describe,
    framed,
    golden,
    make_case,
    mutate_body,
    rearranged,
)

_IDS: Final = ("x-1", "x-2")
_WAIT: Final = 10.0
"""Seconds after which something that should end does not."""
_FDS_EVERY: Final = 25


def _lies() -> list[FromWorker]:
    """What no worker of the session below has a reason to say."""
    messages: list[FromWorker] = [
        Ready(PROTOCOL, 1, "3.13.0", 2**26),
        Error("protocol", "RemoteProtocolError", "1: a complaint"),
        Error("exception", "E", "of nobody", execution_id="x-9"),
        Result("x-9", "simple_sync"),
        Output("stdout", "of nobody", execution_id="x-9"),
        OutputRest("stdout", "of nobody", "x-9"),
        Input("x-9:input:1", "x-9"),
        Call("x-9:f:1", "x-9", "f", encode_value([]), encode_value({})),
    ]
    for key in _IDS:
        messages += [
            Input(f"{key}:input:7", key),
            Input("", key),
            Call(f"{key}:f:2", key, "f", encode_value({}), encode_value([])),
            Call(f"{key}:nobody:1", key, "nobody", encode_value([]), encode_value({})),
            Result(key, "simple_sync", value=Raw(b"\xa4\xff\xfe\xfd\xfc"), repr="…"),
        ]
    for key in ("1", "9", "c-1"):
        messages += [Pong(nonce=9), Completions(request_id=key), Inspection(request_id=key)]
        messages += [Checkpointed(checkpoint_id=key), Restored(key)]
    return messages


def _answers() -> list[FromWorker]:
    """What answers the questions of the session below."""
    variables = [Variable("a", "int", "1", 28)]
    return [
        Pong(nonce=1),
        Completions(request_id="2", matches=["a"], kinds=["name"]),
        Inspection(request_id="3", variables=variables),
        Checkpointed(checkpoint_id="c-1", data=b"d", blobs={"d": b""}, needs=["d"]),
    ]


def _course(key: str) -> list[FromWorker]:
    """What an execution says, in an order in which it may; the last one ends it."""
    deep = ExceptionData("E", "m", frames=[Frame("<cell 1>", 1, "f")], cause=ExceptionData("F", "n"))
    return [
        Output("stdout", "text\n", execution_id=key),
        Input(f"{key}:input:1", key, "name? "),
        Output("stderr", "text", execution_id=key, captured_stdout=3),
        Call(f"{key}:f:1", key, "f", encode_value([1]), encode_value({"b": 2})),
        OutputRest("stdout", "the rest", key, captured_stderr=2),
        OutputRest("stderr", "the end", key, missing=9),
        Display({"text/plain": "x"}, execution_id=key),
        Call(f"{key}:fail:1", key, "fail", encode_value([]), encode_value({})),
        Output("stderr", "late", execution_id="x-0", late=True),
        Display({"text/plain": "y"}, execution_id=key, display_id="d", update=True),
        Input(f"{key}:input:2", key, password=True),
        Error("exception", "E", "m", execution_id=key, traceback="E: m", cause=deep, members=[deep]),
        Result(key, "simple_sync", value=encode_value([1, {"a": b""}]), repr="…", type_name="list"),
    ]


def _honest(chance: Random) -> list[bytes]:
    """Return frames of which each may follow those before it."""
    frames: list[FromWorker] = []
    for key in _IDS:
        *said, failed, done = _course(key)
        frames += [message for message in said if chance.random() < 0.6]
        end = chance.choice((failed, done, None))
        if end is None:
            break  # it runs on, and what comes after it waits
        frames.append(end)
    for answer in _answers():
        if chance.random() < 0.5:
            frames.insert(chance.randrange(len(frames) + 1), answer)
    return [encode(message) for message in frames]


def _corpus() -> Corpus:
    corpus = Corpus()
    for message in (*_lies(), *_answers(), *_course(_IDS[0]), *_course(_IDS[1])):
        corpus.add(encode(message)[4:])
    return corpus


class ClientSessions:
    """The target of processes for `client`."""

    def __init__(self, tally: Counter[str]) -> None:
        self._tally = tally
        self._live = _corpus()
        self._runner = asyncio.Runner(debug=False)
        self._strays: list[str] = []
        self._runner.get_loop().set_exception_handler(self._on_stray)
        # A worker's complaints and a dead session's last words are the user's log, not ours.
        logging.getLogger("pyrepl3").setLevel(logging.CRITICAL)
        self._fds: int | None = None
        self._done = 0

    def _on_stray(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._strays.append(describe(context, 1000))

    def make(self, chance: Random) -> tuple[bool, Case]:
        """Return what a worker sends after it is ready: mostly of this session, some of any."""
        if chance.random() < 0.2:
            case = make_case(chance, golden(to_worker=False), wrong=0.4)
            return False, Case(case.frames, choice=case.choice)
        frames = _honest(chance)
        for _ in range(chance.choice((0, 0, 1, 2, 6))):
            body = (
                chance.choice(self._live.bodies) if chance.random() < 0.3 else mutate_body(chance, self._live)
            )
            frames.insert(chance.randrange(len(frames) + 1), framed(body))
        if chance.random() < 0.5:
            frames = rearranged(chance, frames)
        return False, Case(frames or [encode(Pong())], choice=chance.getrandbits(32))

    def check(self, to_worker: bool, case: Case) -> None:
        """Open a session, send the stream, see how everything ends."""
        self._runner.run(self._session(case))
        self._done += 1
        assert not self._strays, f"in the loop: {self._strays}"
        if self._done % _FDS_EVERY == 0:
            self._count_fds()

    def settle(self) -> None:
        """Close the loop."""
        self._runner.close()
        assert not self._strays, f"in the loop: {self._strays}"

    def _count_fds(self) -> None:
        count = len(os.listdir("/proc/self/fd"))
        if self._fds is None:
            self._fds = count
        assert count <= self._fds, f"{count} fds are open, {self._fds} were"

    async def _session(self, case: Case) -> None:
        chance = Random(case.choice)
        worker, release = ScriptedWorker(), asyncio.Event()

        @worker.script("wait")
        async def wait(run: Run) -> int:
            await release.wait()
            return 1

        # Its own answers would fall between two pieces of a frame, and be taken for a part of it.
        worker.unanswered |= {Ping, Complete, Inspect, GetStats, Checkpoint}
        async with testing.open_session(
            worker,
            "fuzz",
            config=pyrepl3.WorkerConfig(cancel_grace=0.2, kill_grace=0.2, close_grace=2.0),
            capabilities={"f": _host_function, "fail": _failing},
            on_input=chance.choice((None, _answer)),
            on_output=chance.choice((None, _ignore, _ignore_slowly)),
            recovery="auto" if chance.random() < 0.05 else "none",
        ) as session:
            await self._exchange(chance, session, worker, release, case)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {describe(left)}"

    async def _exchange(
        self,
        chance: Random,
        session: pyrepl3.Session,
        worker: ScriptedWorker,
        release: asyncio.Event,
        case: Case,
    ) -> None:
        executions = [session.start("wait", execution_id=key, check=False) for key in _IDS]
        asking: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(question)
            for question in (
                session.ping(_WAIT),
                session.complete("a", timeout=_WAIT),
                session.variables(_WAIT),
                session.checkpoint("c-1"),
            )
        ]
        await asyncio.sleep(0)
        life = worker.process
        for chunk in case.chunks():
            life.send_bytes(chunk)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        if chance.random() < 0.2:
            asking.append(asyncio.ensure_future(executions[0].cancel()))
        _, broken = decode(False, case)
        # From here on it answers all, as also the next incarnation does that a session comes back in.
        worker.unanswered.clear()
        if broken is None:
            asking.append(asyncio.ensure_future(session.ping(_WAIT)))
        elif "ended inside" in broken.reason:
            # Nothing that follows could be understood; here it dies in mid-frame.
            life.exit(1)
        release.set()
        self._tally["streams that broke the protocol"] += broken is not None
        for execution in executions:
            await self._ends(execution.result(), "execution")
        if broken is None:
            await self._ends(asking.pop(), "last ping")
        for question in asking:
            question.cancel()
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert not isinstance(outcome, BaseException) or isinstance(
                outcome, pyrepl3.PyRepl3Error | asyncio.CancelledError
            ), f"a question ended with {outcome!r}"
        if broken is not None and not session.recoveries:
            assert life.ended, "a worker that broke the protocol lives on"

    async def _ends(self, waiting: Coroutine[Any, Any, Any] | asyncio.Future[Any], what: str) -> None:
        try:
            async with asyncio.timeout(_WAIT):
                outcome: Any = await waiting
        except pyrepl3.PyRepl3Error as error:
            outcome = error
        except TimeoutError:
            raise AssertionError(f"{what}: nothing came of it in {_WAIT:g} seconds") from None
        assert str(outcome), "an error, or anything else, without a word"
        kind = type(outcome).__name__
        if isinstance(outcome, pyrepl3.ExecutionResult):
            _touch(outcome)
            kind = "value" if outcome.error is None else f"error of kind {outcome.error.kind}"
        self._tally[f"{what}: {kind}"] += 1


def _touch(outcome: pyrepl3.ExecutionResult) -> None:
    """Look at all that a user may look at."""
    for name in outcome.__struct_fields__:
        repr(getattr(outcome, name))
    assert isinstance(outcome.stdout, str)
    assert isinstance(outcome.stderr, str)


async def _host_function(a: int = 0, b: int = 0) -> int:
    return a + b


async def _failing() -> None:
    raise LookupError("nothing")


async def _answer(prompt: str) -> str:
    await asyncio.sleep(0)
    return prompt


def _ignore(output: pyrepl3.Output) -> None:
    return


async def _ignore_slowly(output: pyrepl3.Output) -> None:
    with suppress(TimeoutError):
        await asyncio.sleep(0)
