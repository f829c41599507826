"""What `open_session` returns, and what its user is told who takes it for something else."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SessionOpener, sync
from pyrepl3_client.testing import ScriptedWorker
from pyrepl3_client.testing import open_session as open_scripted
from tests.helpers.leak_check import Resources

HOW = "write `async with open_session"


async def iterate(opener: Any) -> None:
    async for _ in opener:
        pass


async def enter_without_async(opener: Any) -> None:
    with opener:
        pass


async def run_unopened(opener: Any) -> None:
    await opener.execute("1")


async def ask_unopened(opener: Any) -> None:
    print(opener.session_id)


async def loop_over(opener: Any) -> None:
    list(opener)


async def open_twice(opener: Any) -> None:
    session = await opener
    try:
        await opener
    finally:
        await session.close()


async def enter_again(opener: Any) -> None:
    async with opener as session:
        pass
    async with session:
        pass


async def use_closed(opener: Any) -> None:
    async with opener as session:
        pass
    await session.execute("1")


async def enter_session_without_async(opener: Any) -> None:
    async with opener as session:
        with session:
            pass


MISTAKES: list[tuple[Callable[[Any], Awaitable[None]], type[Exception], str]] = [
    (iterate, TypeError, HOW),
    (loop_over, TypeError, HOW),
    (enter_without_async, TypeError, HOW),
    (run_unopened, AttributeError, f"no attribute 'execute'.*{HOW}"),
    (ask_unopened, AttributeError, f"no attribute 'session_id'.*{HOW}"),
    (open_twice, pyrepl3.PyRepl3Error, r"call open_session\(\) for each session"),
    (enter_again, pyrepl3.SessionClosed, r"is closed: open_session\(\) opens another one"),
    (use_closed, pyrepl3.SessionClosed, r"is closed: open_session\(\) opens another one"),
    (enter_session_without_async, TypeError, "is asynchronous: write `async with`"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("mistake", "kind", "words"), MISTAKES, ids=[row[0].__name__ for row in MISTAKES])
async def test_a_mistake_with_a_session_says_what_to_write(
    mistake: Callable[[Any], Awaitable[None]], kind: type[Exception], words: str
) -> None:
    opener = open_scripted(ScriptedWorker())
    with pytest.raises(kind, match=words):
        await mistake(opener)
    del opener  # it has told already how to use it: there is no warning
    gc.collect()


def test_one_that_is_never_used_is_warned_of_and_has_started_nothing() -> None:
    before = Resources()
    opener = pyrepl3.open_session()
    assert repr(opener) == "<SessionOpener: nothing is open; await it, or enter it by `async with`>"
    assert (Resources().children, Resources().fds) == (before.children, before.fds)
    with pytest.warns(RuntimeWarning, match="never awaited or entered"):
        del opener


def test_it_has_no_attributes_but_its_own() -> None:
    opener: Any = pyrepl3.open_session()
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        opener.nonsense  # noqa: B018 - the attribute is what is asked for
    with pytest.raises(AttributeError):
        opener.execute  # noqa: B018 - and this tells how to use it, so that nothing is warned of


def drive(opener: SessionOpener) -> None:
    """Await without any event loop."""
    with suppress(StopIteration):
        opener.__await__().send(None)


def test_without_an_event_loop_the_error_names_asyncio_and_what_to_do() -> None:
    with pytest.raises(
        pyrepl3.PyRepl3Error, match=r"a running asyncio event loop, and none runs .*asyncio\.run"
    ):
        drive(pyrepl3.open_session())
    with pytest.raises(pyrepl3.PyRepl3Error, match=r"a running asyncio event loop, and none runs"):
        pyrepl3.WorkerPool(1).__aenter__().send(None)


def test_under_trio_the_error_names_asyncio_and_what_to_do() -> None:
    trio = pytest.importorskip("trio", reason="trio is of the group notebooks")

    async def main(opened: Any) -> None:
        with pytest.raises(pyrepl3.PyRepl3Error, match=r"here trio runs: use pyrepl3_client\.sync"):
            async with opened:
                pass

    trio.run(main, pyrepl3.open_session())
    trio.run(main, pyrepl3.WorkerPool(1))


def test_a_sync_session_shows_itself_and_refuses_async_with() -> None:
    async def enter(session: Any) -> None:
        async with session:
            pass

    with sync.open_session("shown") as session:
        assert repr(session) == f"<sync.Session 'shown' ready worker {session.worker.pid}>"
        assert repr(session.start("1", execution_id="e")).startswith("<Execution 'e' ")
        with pytest.raises(TypeError, match=r"is of pyrepl3_client\.sync: write `with`"):
            asyncio.run(enter(session))
    assert repr(session).startswith("<sync.Session 'shown' closed")
    assert repr(sync.WorkerPool(2)) == "<sync.WorkerPool of 2: not open>"
    assert repr(pyrepl3.WorkerPool(2)) == "<WorkerPool of 2: not open>"


def test_a_forgotten_await_is_named_by_python_itself() -> None:
    code = "import pyrepl3_client as p\np.open_session()\n"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "RuntimeWarning: open_session() was never awaited or entered" in told.stderr
