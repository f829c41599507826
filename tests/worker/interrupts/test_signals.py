"""Where the session's loop is idle, and where code holds it."""

import asyncio
import sys
from types import FrameType

from pyrepl3_worker.interrupts.signals import inside_callback, loop_is_idle, runs_loop


@runs_loop
def serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop as the session does."""
    loop.run_forever()


def test_the_loops_own_code_is_idle_and_what_it_calls_is_not() -> None:
    """Whatever is raised in the loop's own code would end the session; what a callback calls holds it."""
    loop = asyncio.SelectorEventLoop()
    idle: dict[str, set[bool]] = {}

    def callback() -> None:
        loop.call_soon(loop.stop)

    def note(frame: FrameType, event: str, argument: object) -> None:
        del event, argument
        answer = loop_is_idle(serve.__code__, frame)  # type: ignore[attr-defined]
        idle.setdefault(frame.f_code.co_name, set()).add(answer)

    loop.call_later(0.001, callback)
    sys.setprofile(note)
    try:
        serve(loop)
    finally:
        sys.setprofile(None)
        loop.close()
    for name in ("serve", "run_forever", "_run_once", "select", "_process_events", "_run"):
        assert idle[name] == {True}, name
    for name in ("callback", "call_soon"):
        assert idle[name] == {False}, name


def test_what_is_raised_in_the_loops_own_code_for_a_callback_would_be_lost() -> None:
    """The loop logs it and goes on. What a coroutine calls raises in the coroutine."""
    lost: dict[str, set[bool]] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        del event, argument
        lost.setdefault(frame.f_code.co_name, set()).add(inside_callback(frame))

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.0, print)
        await asyncio.sleep(0)

    loop = asyncio.SelectorEventLoop()
    sys.setprofile(note)
    try:
        loop.run_until_complete(main())
    finally:
        sys.setprofile(None)
        loop.close()
    for name in ("_run", "_run_until_complete_cb"):
        assert lost[name] == {True}, name
    for name in ("main", "call_later", "sleep", "select", "_run_once"):
        assert lost[name] == {False}, name
