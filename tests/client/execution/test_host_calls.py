"""Host functions: what is offered, how it is called, and what comes back."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import threading
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import CallContext, capability
from pyrepl3_client.testing import CallFailed, Run, ScriptedWorker
from pyrepl3_schemas.messages import CallResponse, Hello
from tests.helpers.scripted_sessions import ONE, opened

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def calls(worker: ScriptedWorker) -> None:
    @worker.script("calls f")
    async def one(run: Run) -> Any:
        return await run.call("f", 1, b=2)

    @worker.script("calls f twice at once")
    async def two(run: Run) -> Any:
        return await asyncio.gather(run.call("f", 1), run.call("f", 2))

    @worker.script("what f raises")
    async def raises(run: Run) -> Any:
        try:
            await run.call("f")
        except CallFailed as error:
            return [error.exception, str(error)]


def keyed(a: int, b: int, key: str) -> list[int]:
    assert key == "k"
    return [a, b]


class Callable:
    """Called like a function."""

    async def __call__(self, a: int, b: int = 0) -> list[int]:
        return [a, b]


def plain(a: int, b: int = 0) -> list[int]:
    """Add nothing.

    At all.
    """
    return [a, b]


async def asynchronous(a: int, *, b: int) -> list[int]:
    await asyncio.sleep(0)
    return [a, b]


def gives_a_coroutine(a: int, b: int) -> Any:
    return asynchronous(a, b=b)


@pytest.mark.parametrize(
    "function",
    [
        plain,
        asynchronous,
        Callable(),
        functools.partial(keyed, key="k"),
        gives_a_coroutine,
        capability(plain),
    ],
    ids=["plain", "async", "object", "partial", "plain around async", "capability"],
)
async def test_whatever_can_be_called(worker: ScriptedWorker, function: Any) -> None:
    async with opened(worker, capabilities={"f": function}) as session:
        assert (await session.execute("calls f")).value == [1, 2]


async def test_the_worker_is_told_name_signature_and_doc(worker: ScriptedWorker) -> None:
    def with_context(query: str, call: CallContext, *, limit: int = 3) -> None: ...

    async with opened(worker, capabilities={"f": plain, "g": with_context, "h": math.hypot}):
        hello = await worker.wait_for(Hello)
    told = {spec.name: (spec.signature, spec.doc) for spec in hello.capabilities}
    assert told["f"] == ("(a: int, b: int = ...) -> list[int]", "Add nothing.\n\nAt all.")
    assert told["g"][0] == "(query: str, *, limit: int = ...) -> None"
    assert told["h"][0] in ("(*args, **kwargs)", "(*coordinates)")


async def test_a_function_may_know_its_call(worker: ScriptedWorker) -> None:
    contexts: list[CallContext] = []

    def f(a: int, context: CallContext, b: int) -> int:
        contexts.append(context)
        return a + b

    async with opened(worker, capabilities={"f": f}) as session:
        assert (await session.execute("calls f", execution_id="e")).value == 3
    assert contexts == [CallContext(execution_id="e", call_id="e:f:1", attempt=1)]


async def test_plain_functions_run_in_threads_and_all_at_once(worker: ScriptedWorker) -> None:
    both = threading.Barrier(2, timeout=10)

    def f(number: int) -> int:
        both.wait()
        return number

    async with opened(worker, capabilities={"f": f}) as session:
        assert (await session.execute("calls f twice at once")).value == [1, 2]


async def test_asynchronous_functions_run_all_at_once(worker: ScriptedWorker) -> None:
    both = asyncio.Barrier(2)

    async def f(number: int) -> int:
        await both.wait()
        return number

    async with opened(worker, capabilities={"f": f}) as session:
        assert (await session.execute("calls f twice at once")).value == [1, 2]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_functions_see_the_context_that_the_session_was_opened_in(
    worker: ScriptedWorker, asynchronous: bool
) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    def f(*args: int, **kwargs: int) -> str:
        return user.get()

    async def g(*args: int, **kwargs: int) -> str:
        return user.get()

    user.set("Ada")
    async with opened(worker, capabilities={"f": g if asynchronous else f}) as session:
        user.set("somebody else")
        assert (await session.execute("calls f")).value == "Ada"


async def test_what_a_function_raises_is_told_by_name(
    worker: ScriptedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "pyrepl3.calls")  # no report of a test can hold a lone surrogate

    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    async def fails() -> None:
        raise LookupError("no such \ud800 thing")

    def fails_oddly() -> None:
        raise OddError

    async with opened(worker, capabilities={"f": fails}) as session:
        told = (await session.execute("what f raises")).value
    assert told == ["LookupError", "no such \\ud800 thing"]
    async with opened(worker, capabilities={"f": fails_oddly}) as session:
        told = (await session.execute("what f raises")).value
    assert told == ["OddError", "<OddError whose text cannot be had>"]


@pytest.mark.parametrize("timeout", [None, 60])
async def test_what_a_function_had_cancelled_is_told_like_any_error(
    worker: ScriptedWorker, timeout: float | None
) -> None:
    async def waits_for_a_cancelled_task() -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel("not needed")
        await task

    async def raises_at_once() -> None:
        raise asyncio.CancelledError

    def raises_in_a_thread() -> None:
        raise asyncio.CancelledError("in a thread")

    told: list[Any] = []
    for function in (waits_for_a_cancelled_task, raises_at_once, raises_in_a_thread):
        async with opened(worker, capabilities={"f": capability(function, timeout=timeout)}) as session:
            told.append((await session.execute("what f raises")).value)
            assert (await session.execute(ONE)).value == 2
    nobody = "something on the host has cancelled capability 'f'"
    assert told == [["CancelledError", text] for text in ("not needed", nobody, "in a thread")]


class Abort(BaseException):
    """As frameworks have for their own control flow."""


async def raises_base() -> None:
    raise Abort("stop")


def raises_base_in_a_thread() -> None:
    raise Abort("stop")


def gives_what_raises_base() -> Any:
    return raises_base()


async def presses_ctrl_c() -> None:
    raise KeyboardInterrupt


def presses_ctrl_c_in_a_thread() -> None:
    raise KeyboardInterrupt


async def closes_itself() -> None:
    raise GeneratorExit("closed")


async def has_no_next() -> None:
    next(iter(()))


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("by itself")
    await asyncio.Event().wait()


async def cancelled_by_a_helper() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.Event().wait()


async def leaves_a_scope_open() -> None:
    """As clients do that keep a connection for later calls: its group cancels in each turn of the loop."""
    group = anyio.create_task_group()
    await group.__aenter__()
    group.cancel_scope.cancel()
    await anyio.sleep_forever()


async def cancels_all_tasks() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task.get_name() == "capability 'f'":
            task.cancel()
    await asyncio.Event().wait()


class Silent(BaseException):
    def __str__(self) -> str:
        raise Abort


async def says_nothing() -> None:
    raise Silent


class Loud(Exception):  # noqa: N818 - its text is what is tested
    def __str__(self) -> str:
        raise Abort


def says_nothing_either() -> None:
    raise Loud


@pytest.mark.parametrize(
    ("function", "exception", "message"),
    [
        (raises_base, "Abort", "stop"),
        (raises_base_in_a_thread, "Abort", "stop"),
        (gives_what_raises_base, "Abort", "stop"),
        (presses_ctrl_c, "KeyboardInterrupt", ""),
        (presses_ctrl_c_in_a_thread, "KeyboardInterrupt", ""),
        (closes_itself, "GeneratorExit", "closed"),
        (has_no_next, "RuntimeError", "coroutine raised StopIteration"),
        (cancels_itself, "CancelledError", "by itself"),
        (cancelled_by_a_helper, "CancelledError", "something on the host has cancelled capability 'f'"),
        (leaves_a_scope_open, "CancelledError", None),
        (cancels_all_tasks, "CancelledError", None),
        (says_nothing, "Silent", "<Silent whose text cannot be had>"),
        (says_nothing_either, "Loud", "<Loud whose text cannot be had>"),
    ],
)
@pytest.mark.parametrize("timeout", [None, 60])
async def test_every_end_of_a_function_is_an_answer(
    worker: ScriptedWorker, function: Any, exception: str, message: str | None, timeout: float | None
) -> None:
    async with opened(worker, capabilities={"f": capability(function, timeout=timeout)}) as session:
        told = (await session.execute("what f raises")).value
        assert (await session.execute(ONE)).value == 2
    assert told == [exception, told[1] if message is None else message]


async def test_a_function_that_survives_its_cancel_answers(worker: ScriptedWorker) -> None:
    async def goes_on(*args: int, **kwargs: int) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "went on"

    async with opened(worker, capabilities={"f": goes_on}) as session:
        assert (await session.execute("calls f")).value == "went on"


async def test_a_caller_that_is_cancelled_stays_cancelled_and_its_calls_with_it(
    worker: ScriptedWorker,
) -> None:
    started, ended = asyncio.Event(), list[str]()

    async def f(*args: int, **kwargs: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with opened(worker, capabilities={"f": f}) as session:
        caller = asyncio.ensure_future(session.execute("calls f"))
        await started.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended == ["cancelled"]
        assert (await session.execute(ONE)).value == 2


async def test_a_call_for_which_no_thread_can_be_started_is_an_error_and_never_made(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with opened(worker, capabilities={"f": lambda: called.append(1)}) as session:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            told = (await session.execute("what f raises")).value
        assert told == ["RuntimeError", "can't start new thread"]
        assert (await session.execute("what f raises")).value is None
    assert called == [1]


async def test_a_thread_that_raises_stop_iteration_does_not_hang(worker: ScriptedWorker) -> None:
    async with opened(worker, capabilities={"f": lambda: next(iter(()))}) as session:
        told = (await session.execute("what f raises")).value
    assert told == ["RuntimeError", "capability 'f' raised StopIteration"]


async def test_a_value_that_cannot_cross_is_an_error(worker: ScriptedWorker) -> None:
    async with opened(worker, capabilities={"f": object}) as session:
        exception, message = (await session.execute("what f raises")).value
    assert exception == "CapabilityError"
    assert "capability 'f': object has no form as plain data" in message


async def test_a_value_that_is_longer_than_a_frame_is_an_error(worker: ScriptedWorker) -> None:
    async with opened(worker, capabilities={"f": lambda: b"x" * (65 << 20)}) as session:
        exception, message = (await session.execute("what f raises")).value
    assert exception == "CapabilityError"
    assert "max_frame_bytes=67,108,864" in message


async def test_a_call_of_what_was_not_offered_ends_the_worker_and_names_what_was(
    worker: ScriptedWorker,
) -> None:
    """Code has no way to it: only a worker that makes its own frames calls what nobody gave it."""
    async with opened(worker, capabilities={"search": plain, "buy": plain}) as session:
        with pytest.raises(
            pyrepl3.WorkerDied, match="called 'f', which it was not offered; it was: buy, search"
        ):
            await session.execute("what f raises")


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_call_that_takes_too_long_says_everything_about_itself(
    worker: ScriptedWorker, blocking: bool
) -> None:
    go_on = threading.Event()

    async def hangs() -> None:
        await asyncio.Event().wait()

    f = capability(go_on.wait if blocking else hangs, timeout=0.01)
    async with opened(worker, capabilities={"f": f}) as session:
        told = (await session.execute("what f raises", execution_id="e")).value
        go_on.set()
    details = "capability=f, execution_id=e, request_id=e:f:1, timeout=0.01"
    assert told == ["TimeoutError", f"capability 'f' did not answer in time ({details})"]


async def test_a_functions_own_timeout_error_stays_its_own(worker: ScriptedWorker) -> None:
    async def f() -> None:
        raise TimeoutError("the database")

    async with opened(worker, capabilities={"f": capability(f, timeout=60)}) as session:
        assert (await session.execute("what f raises")).value == ["TimeoutError", "the database"]


async def test_calls_of_an_execution_end_with_it_and_others_go_on(worker: ScriptedWorker) -> None:
    ended: list[int] = []
    started = asyncio.Event()

    async def f(number: int, b: int = 0) -> int:
        if number == 2:
            started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)
        return number

    async with opened(worker, capabilities={"f": f}) as session:
        execution = session.start("calls f twice at once")
        await started.wait()
        await execution.cancel()
        assert (await session.execute(ONE)).value == 2
        assert sorted(ended) == [1, 2]
    assert not any(isinstance(message, CallResponse) for message in worker.received)


async def test_a_call_after_the_end_of_its_execution_is_answered_under_its_id(worker: ScriptedWorker) -> None:
    """By a task that it has left behind, between two executions."""
    ids: list[str] = []

    def f(number: int, context: CallContext) -> int:
        ids.append(context.call_id)
        return -number

    @worker.script("calls later")
    async def later(run: Run) -> None:
        worker.background = asyncio.ensure_future(run.call("f", -6))  # pyright: ignore[reportAttributeAccessIssue]

    async with opened(worker, capabilities={"f": f}) as session:
        await session.execute("calls later", execution_id="e")
        assert await worker.background == 6  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        assert (await session.execute(ONE)).value == 2
    assert ids == ["e:f:1"]


@pytest.mark.parametrize("name", ["no name", "class", "", "a.b", "1st"])
async def test_a_name_that_cannot_be_called_is_refused(worker: ScriptedWorker, name: str) -> None:
    with pytest.raises(pyrepl3.CapabilityError, match=f"{name!r}"):
        async with opened(worker, capabilities={name: plain}):
            pass


async def test_what_cannot_be_called_is_refused(worker: ScriptedWorker) -> None:
    with pytest.raises(pyrepl3.CapabilityError, match="'f' cannot be called: it is 5"):
        async with opened(worker, capabilities={"f": 5}):
            pass
    with pytest.raises(ValueError, match="timeout"):
        capability(plain, timeout=0)


async def test_what_would_end_a_program_is_for_the_code_to_hear(worker: ScriptedWorker) -> None:
    async def leave() -> None:
        raise SystemExit(2)

    def look_up() -> None:
        raise KeyError("colour")

    told: list[Any] = []
    for function in (leave, look_up):
        async with opened(worker, capabilities={"f": function}) as session:
            told.append((await session.execute("what f raises")).value)
    assert told == [["SystemExit", "2"], ["KeyError", "colour"]]
