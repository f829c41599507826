"""Host functions and handlers that call the session whose code waits for them."""

import asyncio
import contextvars
import logging
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._execution import serving
from pyrepl3_client.testing import Run, ScriptedWorker
from tests.helpers.scripted_sessions import ONE, opened, script_basics

pytestmark = pytest.mark.anyio

REFUSED = "execution 'inner' would wait for itself: it was asked for inside of "


@pytest.fixture(autouse=True)
def cells(worker: ScriptedWorker) -> None:
    script_calls(worker)


def script_calls(worker: ScriptedWorker) -> None:
    @worker.script("calls f")
    async def calls(run: Run) -> Any:
        return await run.call("f")

    @worker.script("asks")
    async def asks(run: Run) -> Any:
        return await run.input("? ")

    @worker.script("prints")
    async def prints(run: Run) -> None:
        run.print("text")


class Host:
    """Functions that call a session, and tell what came of it."""

    session: pyrepl3.Session

    async def execute(self, *_: object) -> str:
        return await told(self.session.execute(ONE, execution_id="inner"))

    async def start(self, *_: object) -> str:
        try:
            self.session.start(ONE, execution_id="inner")
        except pyrepl3.CapabilityError as error:
            return str(error)
        return "it has begun"

    async def in_a_task(self, *_: object) -> str:
        return await asyncio.create_task(self.execute())

    def in_a_thread(self, *_: object) -> str:
        loop = self.session._supervisor._loop  # pyright: ignore[reportPrivateUsage]
        return asyncio.run_coroutine_threadsafe(self.execute(), loop).result()

    async def save(self, *_: object) -> str:
        return await told(self.session.checkpoint("inner"))

    async def put_back(self, *_: object) -> str:
        return await told(self.session.restore("inner"))


async def told(request: Any) -> str:
    try:
        await request
    except pyrepl3.CapabilityError as error:
        return str(error)
    return "it ran"


@pytest.mark.parametrize("how", ["execute", "start", "in_a_task", "in_a_thread"])
async def test_a_function_that_runs_code_in_its_own_session_is_refused(
    worker: ScriptedWorker, how: str
) -> None:
    host = Host()
    async with opened(worker, capabilities={"f": getattr(host, how)}) as host.session:
        text = (await host.session.execute("calls f", execution_id="outer")).value
        assert text.startswith(f"{REFUSED}capability 'f', which answers 'outer:f:1'")
        assert "execution 'outer' of the same session waits for that. Return first" in text
        assert (await host.session.execute(ONE, execution_id="inner")).value == 2


@pytest.mark.parametrize(
    ("how", "what"), [("save", "checkpoint 'inner'"), ("put_back", "the restore of checkpoint 'inner'")]
)
async def test_what_would_wait_for_the_cells_end_is_refused_too(
    worker: ScriptedWorker, how: str, what: str
) -> None:
    host = Host()
    async with opened(worker, capabilities={"f": getattr(host, how)}) as host.session:
        text = (await host.session.execute("calls f")).value
    assert text.startswith(f"{what} would wait for itself")


@pytest.mark.parametrize("how", ["execute", "in_a_thread"])
async def test_an_input_handler_that_runs_code_in_its_own_session_is_refused(
    worker: ScriptedWorker, how: str
) -> None:
    host = Host()
    async with opened(worker, on_input=getattr(host, how)) as host.session:
        text = (await host.session.execute("asks", execution_id="outer")).value
    assert text.startswith(f"{REFUSED}on_input, which answers 'outer:input:1'")


async def test_an_output_handler_that_waits_for_code_in_its_own_session_is_refused(
    worker: ScriptedWorker,
) -> None:
    host = Host()
    heard: list[str] = []

    async def handler(output: pyrepl3.Output) -> None:
        heard.append(await host.execute())

    async with opened(worker) as host.session:
        await host.session.execute("prints", on_output=handler)
    assert heard[0].startswith(f"{REFUSED}its on_output handler")


async def test_an_output_handler_may_submit_what_it_does_not_wait_for(worker: ScriptedWorker) -> None:
    host = Host()
    started: list[pyrepl3.Execution] = []
    async with opened(worker) as host.session:
        await host.session.execute("prints", on_output=lambda _: started.append(host.session.start(ONE)))
        assert (await started[0]).value == 2


async def test_what_a_function_leaves_behind_may_run_code_once_it_has_returned(
    worker: ScriptedWorker,
) -> None:
    host = Host()
    left: list[asyncio.Task[str]] = []

    async def leaves_a_task(*_: object) -> str:
        left.append(asyncio.create_task(host.execute()))
        return "returned"

    async with opened(worker, capabilities={"f": leaves_a_task}) as host.session:
        assert (await host.session.execute("calls f")).value == "returned"
        assert await left[0] == "it ran"


async def test_by_way_of_another_session_it_is_its_own_too(worker: ScriptedWorker) -> None:
    first, second = Host(), Host()
    other = ScriptedWorker()
    script_basics(other)
    script_calls(other)

    async def through_the_other(*_: object) -> str:
        return (await second.session.execute("calls f")).value

    async with (
        opened(other, capabilities={"f": first.execute}) as second.session,
        opened(worker, capabilities={"f": through_the_other}) as first.session,
    ):
        text = (await first.session.execute("calls f", execution_id="outer")).value
        assert text.startswith(f"{REFUSED}capability 'f', which answers 'outer:f:1'")
        assert (await second.session.execute("calls f", execution_id="by itself")).value == "it ran"


async def test_a_function_may_run_code_in_another_session(worker: ScriptedWorker) -> None:
    host = Host()
    other = ScriptedWorker()
    script_basics(other)
    async with opened(other) as host.session, opened(worker, capabilities={"f": host.execute}) as session:
        assert (await session.execute("calls f")).value == "it ran"


@pytest.mark.parametrize("before", [True, False], ids=["it waits already", "it comes later"])
async def test_what_waits_behind_a_call_for_long_is_logged_once(
    worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, before: bool
) -> None:
    monkeypatch.setattr(serving, "NOTICE_SECONDS", 0.001)
    called, go_on, logged = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def f(*_: object) -> str:
        called.set()
        await go_on.wait()
        return "answered"

    class Hear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.set()

    hear = Hear()
    logging.getLogger("pyrepl3.calls").addHandler(hear)
    async with opened(worker, capabilities={"f": f}) as session:
        outer = session.start("calls f", execution_id="outer")
        if not before:
            await called.wait()
        # In a context that knows nothing of the call.
        inner = contextvars.Context().run(lambda: session.start(ONE, execution_id="inner"))
        also = session.start(ONE, execution_id="also")
        await logged.wait()
        go_on.set()
        assert [(await each).value for each in (outer, inner, also)] == ["answered", 2, 2]
    logging.getLogger("pyrepl3.calls").removeHandler(hear)
    text = (
        "execution 'inner' has waited for 0.001 s behind execution 'outer', which waits for capability 'f', "
        "which answers 'outer:f:1'; if that waits for 'inner', neither ends"
    )
    assert caplog.messages == [text]
