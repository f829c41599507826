"""Wishes to stop that come where raising stops nothing.

That is the session's loop at rest, which they must not hit, and code from which nothing that is raised gets out.
"""

import anyio
import anyio.lowlevel
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import PATIENCE, outcome, quick, seen, stop, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def test_two_cancels_at_once_leave_the_worker_alive(session: pyrepl3.Session) -> None:
    """They meet an awaiting cell at every moment of its life, its end too."""
    await session.execute("import asyncio")
    for _ in range(300):
        execution = session.start("await asyncio.sleep(0.0005)")
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(execution.cancel)
                group.start_soon(execution.cancel)
            result = await outcome(execution)
        assert result.error is None or result.error.kind == "cancelled"
    assert await works(session)
    assert session.worker.incarnation == 1


@pytest.mark.parametrize("error", ["asyncio.CancelledError", "type('Mine', (BaseException,), {})", "OSError"])
async def test_a_signal_handler_of_the_codes_that_raises_while_nothing_runs(error: str) -> None:
    """It strikes the loop at rest, where nobody but the session could catch what it raises."""
    rung = anyio.Event()
    async with pyrepl3.open_session(
        config=quick(), recovery="none", on_output=lambda _: rung.set()
    ) as session:
        await session.execute(
            "import asyncio, signal\n"
            f"error = {error}\n"
            "def handler(number, frame):\n    print('rung', flush=True)\n    raise error\n"
            "signal.signal(signal.SIGALRM, handler)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.02) and None"
        )
        with anyio.fail_after(PATIENCE):
            await rung.wait()
        assert await works(session)
        assert session.worker.incarnation == 1


LOSING = {
    "a finalizer": "class Held:\n    def __del__(self):\n        print('ready')\n        while True: abs(0)\nHeld()\n",
    "a weak reference's callback": (
        "import weakref\nclass Held: pass\nheld = Held()\n"
        "def gone(_):\n    print('ready')\n    while True: abs(0)\n"
        "reference = weakref.ref(held, gone)\ndel held\n"
    ),
}


@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
@pytest.mark.parametrize("place", LOSING)
async def test_code_that_goes_on_after_a_finalizer_was_stopped_is_stopped_too(
    place: str, before: str
) -> None:
    """With graces of a minute: one cancel is enough."""
    config = pyrepl3.WorkerConfig(cancel_grace=60, kill_grace=60)
    async with pyrepl3.open_session(config=config) as patient:
        execution = patient.start(f"{before}{LOSING[place]}while True: abs(0)")
        await seen(execution)
        result = await stop(execution)
        assert type_of(result) == "CancelledError"
        assert result.stderr == ""
        assert await value(patient, "import sys\nsys.unraisablehook is sys.__unraisablehook__") is True
        assert await works(patient)
