"""Ctrl-C strikes the synchronous client wherever Python looks for signals: nothing hangs or is left."""

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import CodeType
from typing import Any, Final

import pytest

from pyrepl3_client import sync
from tests.helpers.leak_check import child_pids

TOOL: Final = 4
STRUCK: Final = ("/pyrepl3_client/sync.py", "/_concurrency/", "/asyncio/", "/contextlib.py")
"""Code in which it strikes: what a call runs in the caller's thread. Not `Thread.start`, which Python leaves
half done then: its thread hangs."""

BEGIN: Final = ("close", "__exit__", "insist")
"""Methods that it does not strike at their first instruction: no handler of theirs is in force there."""

DROPPED: Final = pytest.mark.filterwarnings("ignore:session .* was never given back:ResourceWarning")
"""What a Ctrl-C keeps from its `with`."""


class Shot:
    """Raises KeyboardInterrupt in this thread at one of the points where Python looks for signals.

    These are a function's first instruction, a jump back, and the end of a call of a function that is not
    written in Python. Each shot strikes one point later than the one before.
    """

    def __init__(self, at: int) -> None:
        """Strike at the point of this number, from 1 on."""
        self._left = at
        self._thread = threading.get_ident()
        self.point: tuple[str, int] | None = None

    def fire(self, function: Callable[[], object]) -> None:
        """Call a function, and strike while it runs."""
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(TOOL, "Ctrl-C")
        try:
            for event in (events.PY_START, events.JUMP, events.C_RETURN):
                sys.monitoring.register_callback(TOOL, event, self._look)
            sys.monitoring.set_events(TOOL, events.PY_START | events.JUMP | events.CALL)
            function()
        except KeyboardInterrupt:
            assert self.point is not None
        finally:
            sys.monitoring.set_events(TOOL, 0)
            for event in (events.PY_START, events.JUMP, events.C_RETURN):
                sys.monitoring.register_callback(TOOL, event, None)
            sys.monitoring.free_tool_id(TOOL)

    def _look(self, code: CodeType, offset: int, *more: Any) -> None:
        if threading.get_ident() != self._thread or not any(part in code.co_filename for part in STRUCK):
            return
        if len(more) == 1 and more[0] > offset:
            return  # a jump forward
        if not more and code.co_name in BEGIN:
            return
        if code.co_name == "__del__":
            return  # Python drops what is raised there
        self._left -= 1
        if self._left == 0:
            self.point = code.co_qualname, offset
            sys.monitoring.set_events(TOOL, 0)
            raise KeyboardInterrupt


def shots(step: int = 1) -> Iterator[Shot]:
    """Yield shots at all points, or at each `step`th, until one does not strike any more."""
    for number in count(1, step):
        shot = Shot(number)
        yield shot
        if shot.point is None:
            assert number > 5 * step, "it strikes next to nothing"
            return


CALLS: dict[str, Callable[[sync.Session], object]] = {
    "execute": lambda session: session.execute("x = 1"),
    "start": lambda session: session.start("x = 1").result(),
    "events": lambda session: list(session.start("print(1)")),
    "ping": lambda session: session.ping(),
    "get": lambda session: session.get("kept"),
    "set": lambda session: session.set(x=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_session_goes_on_after_a_call_that_was_struck_anywhere(name: str) -> None:
    with sync.open_session() as session:
        session.set(kept=[1, 2])
        for shot in shots():
            shot.fire(lambda: CALLS[name](session))
            assert session.execute("kept").value == [1, 2], shot.point


@pytest.fixture(params=["some", pytest.param("all", marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def every(request: pytest.FixtureRequest) -> bool:
    """Return whether to strike at all points, which takes minutes."""
    return request.param == "all"


def test_opening_that_is_struck_anywhere_leaves_nothing() -> None:
    before = set(child_pids())
    for shot in shots():
        opened: list[sync.Session] = []
        shot.fire(lambda opened=opened: opened.append(sync.open_session()))
        for session in opened:
            session.close()
        assert set(child_pids()) == before, shot.point
        assert not threads(), shot.point


def test_closing_that_is_struck_anywhere_closes(every: bool) -> None:
    before = set(child_pids())
    for shot in shots(1 if every else 8):
        session = sync.open_session()
        shot.fire(session.close)
        assert set(child_pids()) == before, shot.point
        assert not threads(), shot.point


@DROPPED
def test_a_pool_that_is_struck_anywhere_leaves_nothing(every: bool) -> None:
    before = set(child_pids())

    def used() -> None:
        with sync.WorkerPool(1) as pool, pool.open_session() as session:
            session.ping()

    for shot in shots(1 if every else 31):
        shot.fire(used)
        assert set(child_pids()) == before, shot.point
        assert not threads(), shot.point


@DROPPED
def test_sessions_by_name_that_are_struck_anywhere_are_given_back(every: bool) -> None:
    before = set(child_pids())

    def used() -> None:
        with pool.session("a") as session, pool.acquire() as other:
            session.ping()
            pool.release(other)

    with sync.WorkerPool(1, max_sessions=2, fork=False) as pool:
        for shot in shots(1 if every else 23):
            shot.fire(used)
            assert (pool.stats().held, pool.stats().waiting) == (0, 0), shot.point
            # The one by name stays; whatever was struck, the other place is free.
            with pool.acquire(10), pool.session("a") as session:
                assert session.execute("1 + 1").value == 2, shot.point
    assert set(child_pids()) == before
    assert not threads()


def threads() -> list[threading.Thread]:
    """Return the threads that run a loop for the client, and do not end."""
    running = [thread for thread in threading.enumerate() if thread.name.startswith("pyrepl3")]
    for thread in running:
        thread.join(10)
    return [thread for thread in running if thread.is_alive()]
