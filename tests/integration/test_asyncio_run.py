"""`asyncio.run` in a cell, where a loop runs already: stopped at any moment, it gives that loop back."""

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import run, type_of, value, works

pytestmark = pytest.mark.anyio

SLOW = """
import asyncio, contextlib, time

async def quick():
    return 1

class Slow:
    def __init__(self, owner, name):
        self.owner, self.name, self.original = owner, name, getattr(owner, name)

    def __enter__(self):
        def slow(*arguments):
            end = time.monotonic() + 0.15
            while time.monotonic() < end: pass
            return self.original(*arguments)
        setattr(self.owner, self.name, slow)

    def __exit__(self, *_):
        setattr(self.owner, self.name, self.original)
"""
"""Makes a function of the library that is called on the way in or out take its time."""

PLACES = [
    "contextlib._GeneratorContextManager, '__enter__'",
    "contextlib._GeneratorContextManager, '__exit__'",
    "asyncio, 'set_event_loop'",
    "asyncio.Runner, 'close'",
]


@pytest.mark.parametrize("before", ["", "await asyncio.sleep(0)\n"])
@pytest.mark.parametrize("place", PLACES)
async def test_out_of_time_on_its_way_in_or_out(shared: pyrepl3.Session, place: str, before: str) -> None:
    await shared.execute(SLOW)
    result = await run(shared, f"{before}with Slow({place}):\n    asyncio.run(quick())", timeout=0.05)
    # Where it passes that place no more, it is done in time.
    assert type_of(result) in ("", "TimeoutError", "CancelledError")
    assert await value(shared, "task = asyncio.create_task(asyncio.sleep(0, 'slept'))\n1") == 1
    assert await value(shared, "await task") == "slept"
    assert await value(shared, "asyncio.run(quick())") == 1
    assert await works(shared)


async def test_a_task_that_does_not_end_with_it_can_be_stopped(shared: pyrepl3.Session) -> None:
    """What the nested loop still does when the main coroutine has ended is the code's as well."""
    code = (
        "import asyncio\n"
        "async def lingering():\n    try:\n        await asyncio.sleep(60)\n    finally:\n        while True: pass\n"
        "async def main():\n    global task\n    task = asyncio.create_task(lingering())\n    await asyncio.sleep(0)\n"
        "asyncio.run(main())"
    )
    await run(shared, code, timeout=0.1)
    assert await works(shared)


async def test_tasks_have_the_names_that_python_gives_them(shared: pyrepl3.Session) -> None:
    names = (
        "import asyncio\nasync def name(): return asyncio.current_task().get_name()\n"
        "async def names():\n"
        "    tasks = asyncio.create_task(name()), asyncio.create_task(name(), name='mine')\n"
        "    given = [await task for task in tasks]\n"
        "    tasks[1].set_name('renamed')\n"
        "    return [*given, tasks[1].get_name()]\n"
    )
    for call in ("await names()", "asyncio.run(names())"):
        unnamed, named, renamed = await value(shared, names + call)
        assert unnamed.startswith("Task-")
        assert (named, renamed) == ("mine", "renamed")
