"""What editors ask for, answered at once, also while code runs and holds the loop."""

from collections.abc import AsyncIterator

import anyio
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, seen, stop, type_of, value, works

pytestmark = pytest.mark.anyio

SETUP = """
import math, os
number = 42
text = "some text"
class Dog:
    "A good dog."
    def bark(self, times: int = 1) -> str:
        "Bark."
        return "woof" * times
rex = Dog()
def add(a, b=2, *, c=3):
    "Add them."
    return a + b + c
looked = []
class Watched:
    @property
    def trap(self):
        looked.append(1)
        return 1
    def __getattr__(self, name):
        looked.append(name)
        raise AttributeError(name)
    def __repr__(self):
        looked.append("repr")
        return "Watched!"
watched = Watched()
"""


@pytest.fixture(scope="module")
async def editor() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute(SETUP)
        yield session


@pytest.fixture(params=["idle", "busy", "asleep", "awaiting", "busy where it may block"])
async def occupied(request: pytest.FixtureRequest, editor: pyrepl3.Session) -> AsyncIterator[pyrepl3.Session]:
    """The session, doing each of the things it can be doing."""
    code = {
        "busy": "print('ready')\nwhile True: pass",
        "asleep": "import asyncio, time\nasyncio\nprint('ready')\ntime.sleep(60)",
        "awaiting": "import asyncio\nprint('ready')\nawait asyncio.sleep(60)",
        "busy where it may block": "import time\ntime.sleep(0)\nprint('ready')\nwhile True: pass",
    }
    execution = None
    if request.param != "idle":
        execution = editor.start(code[request.param])
        await seen(execution)
    with anyio.fail_after(10):
        yield editor
    if execution is not None:
        assert type_of(await stop(execution)) == "CancelledError"
    assert await works(editor)


async def test_everything_is_answered_at_once(occupied: pyrepl3.Session) -> None:
    completions = await occupied.complete("num")
    assert "number" in completions.matches
    inspection = await occupied.inspect("add")
    assert (inspection.found, inspection.name, inspection.doc) == (True, "add", "Add them.")
    assert "b=2" in inspection.signature
    variables = await occupied.variables()
    assert (variables["number"].type_name, variables["number"].repr) == ("int", "42")
    pong = await occupied.ping()
    assert pong.rss > 1_000_000
    assert pong.cpu_time > 0
    stats = await occupied.stats()
    assert stats.total_executions >= 1


async def test_a_hundred_pings_do_not_disturb_the_code(editor: pyrepl3.Session) -> None:
    execution = editor.start("print('ready')\ntotal = 0\nfor i in range(300_000): total += i\ntotal")
    await seen(execution)
    for _ in range(100):
        await editor.ping()
    assert (await execution.result()).value == sum(range(300_000))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("num", {"number"}),
        ("math.sq", {"sqrt"}),
        ("os.path.jo", {"join"}),
        ("rex.ba", {"bark"}),
        ("text.upp", {"upper"}),
        ("pri", {"print"}),
        ("imp", {"import"}),
        ("x = rex.ba", {"bark"}),
        ("print(num", {"number"}),
        ("import mat", {"math"}),
        ("from math import fl", {"floor"}),
        ("if True:\n    num", {"number"}),
    ],
)  # fmt: skip
async def test_completions(editor: pyrepl3.Session, code: str, expected: set[str]) -> None:
    completions = await editor.complete(code)
    assert expected <= set(completions.matches)
    start, end = completions.cursor_start, completions.cursor_end
    assert end == len(code)
    assert all(match.startswith(code[start:end]) for match in completions.matches)
    assert len(completions.kinds) in (0, len(completions.matches))


async def test_completion_in_the_middle(editor: pyrepl3.Session) -> None:
    completions = await editor.complete("num + 1", 3)
    assert "number" in completions.matches
    assert (completions.cursor_start, completions.cursor_end) == (0, 3)


@pytest.mark.parametrize(
    "code", ["", "   ", "'some tex", "# num", "1.", ")(", "no_such.thing", "é.", "\0", "x" * 10_000]
)
async def test_completion_of_anything_is_an_answer(editor: pyrepl3.Session, code: str) -> None:
    completions = await editor.complete(code)
    assert 0 <= completions.cursor_start <= completions.cursor_end <= len(code)
    assert await works(editor)


async def test_an_editor_is_answered_whatever_the_code_has_broken(session: pyrepl3.Session) -> None:
    """What completes has not been loaded yet, and now cannot be."""
    await session.execute("import builtins, posix\nstat, posix.stat, builtins.len = posix.stat, None, None")
    assert (await session.complete("pri")).matches == []
    assert not (await session.inspect("print")).found
    assert (await session.inspect("")).variables == []
    await session.execute("posix.stat = stat")
    assert "print" in (await session.complete("pri")).matches
    assert (await session.inspect("print")).found


async def test_completing_runs_no_code_of_the_users(editor: pyrepl3.Session) -> None:
    await editor.execute("looked.clear()")  # what showing the value has asked of it
    await editor.complete("watched.tr")
    await editor.complete("watched.trap.re")
    await editor.complete("watched.missing.x")
    await editor.inspect("watched.trap")
    await editor.complete("print(looked.append(9)).x")
    await editor.inspect("looked.append(9)")
    assert await value(editor, "looked") == []


async def test_names_of_a_property_are_completed_all_the_same(editor: pyrepl3.Session) -> None:
    assert "trap" in (await editor.complete("watched.tr")).matches


@pytest.mark.parametrize(
    ("code", "type_name", "doc"),
    [
        ("rex", "Dog", "A good dog."),
        ("Dog", "type", "A good dog."),
        ("rex.bark", "method", "Bark."),
        ("add(1, 2)", "function", "Add them."),
        ("math.sqrt", "builtin_function_or_method", "Return the square root of x."),
        ("number", "int", None),
    ],
)
async def test_inspection(editor: pyrepl3.Session, code: str, type_name: str, doc: str | None) -> None:
    inspection = await editor.inspect(code, 3)
    inspection = inspection if "(" in code else await editor.inspect(code)
    assert inspection.found
    assert inspection.type_name == type_name
    if doc is not None:
        assert inspection.doc.startswith(doc)


async def test_inspection_shows_source_and_signature(editor: pyrepl3.Session) -> None:
    inspection = await editor.inspect("add")
    assert inspection.source.startswith("def add(a, b=2, *, c=3):")
    assert inspection.signature.endswith("(a, b=2, *, c=3)")
    assert "(times: int = 1) -> str" in (await editor.inspect("rex.bark")).signature


@pytest.mark.parametrize("code", ["nothing_here", "rex.nothing", "1 +", "'text'", "\0", "é"])
async def test_what_is_not_there_is_not_found(editor: pyrepl3.Session, code: str) -> None:
    assert not (await editor.inspect(code)).found


async def test_variables_are_the_codes_own(editor: pyrepl3.Session) -> None:
    variables = await editor.variables()
    assert {"number", "text", "Dog", "rex", "add", "watched", "math"} <= set(variables)
    assert not {"In", "Out", "_", "__name__", "__builtins__", "display", "exit", "_last_exception"} & set(
        variables
    )
    assert variables["text"].repr == "'some text'"


async def test_variables_bound_their_reprs(editor: pyrepl3.Session) -> None:
    await editor.execute(
        "huge = list(range(1_000_000))\nclass Bad:\n    def __repr__(self): raise ValueError\nbad = Bad()"
    )
    variables = await editor.variables()
    assert len(variables["huge"].repr) < 10_000
    assert variables["bad"].type_name == "Bad"
    await editor.execute("del huge, bad")


async def test_stats_count(editor: pyrepl3.Session) -> None:
    before = await editor.stats()
    await editor.execute("1 + 1")
    await editor.execute("1 + 1")
    await editor.execute("import asyncio\nawait asyncio.sleep(0)")
    await editor.execute("1/0", check=False)
    await editor.execute("print('12345')\nreturn 1")
    after = await editor.stats()
    assert after.total_executions - before.total_executions == 5
    assert after.successful_executions - before.successful_executions == 4
    assert after.failed_executions - before.failed_executions == 1
    assert (
        after.mode_distribution["top_level_await"] - before.mode_distribution.get("top_level_await", 0) == 1
    )
    assert after.ast_transforms - before.ast_transforms == 1
    assert after.cache_hits - before.cache_hits >= 1
    assert after.output_bytes - before.output_bytes == 6
    assert sum(after.duration_buckets) == after.total_executions
    assert after.total_duration > before.total_duration
    assert 0 < after.cache_hit_rate <= 1


async def test_active_tasks_are_counted(editor: pyrepl3.Session) -> None:
    before = await editor.stats()
    await editor.execute("import asyncio\nts = [asyncio.create_task(asyncio.sleep(600)) for _ in range(3)]")
    after = await editor.stats()
    assert (after.active_tasks - before.active_tasks, after.tasks_created - before.tasks_created) == (3, 3)
    await editor.execute("for t in ts: t.cancel()\nawait asyncio.sleep(0)")


async def test_the_queue_is_told(editor: pyrepl3.Session) -> None:
    first = editor.start("print('ready')\nwhile True: pass", execution_id="running-one")
    await seen(first)
    waiting = [editor.start("1"), editor.start("2")]
    pong = await editor.ping()
    assert (pong.current_execution, pong.queue) == ("running-one", 2)
    await stop(first)
    for execution in waiting:
        await execution.result()
    pong = await editor.ping()
    assert (pong.current_execution, pong.queue) == (None, 0)
