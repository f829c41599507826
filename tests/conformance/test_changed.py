"""`result.changed`, as a table: what a cell does, and what is told of it. On one real worker."""

from collections.abc import AsyncIterator

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(scope="module")
async def watched() -> AsyncIterator[pyrepl3.Session]:
    config = quick()
    config = pyrepl3.WorkerConfig(
        cancel_grace=config.cancel_grace, kill_grace=config.kill_grace, report=("data", "changed")
    )
    async with pyrepl3.open_session(config=config) as session:
        yield session


CELLS: dict[str, tuple[str, str, dict[str, str], list[str]]] = {
    # name: the cell before, the cell, what is found, what is not known
    "added": ("", "a = 1", {"a": "added"}, []),
    "bound anew": ("a = 1", "a = 2", {"a": "changed"}, []),
    "bound to an equal value": ("a = [1]", "a = [1]", {}, []),
    "bound to a value of the same hash": ("a = -1", "a = -2", {"a": "changed"}, []),
    "a value of the same hash in place": ("a = [-1, 0]", "a[:] = [-2, 0]", {"a": "changed"}, []),
    "of the same hash, large": ("a = {'k': 0}", "a['k'] = 2**61 - 1", {"a": "changed"}, []),
    "of the same hash, in a set": ("a = {-1}", "a.clear(); a.add(-2)", {"a": "changed"}, []),
    "of the same hash, in a slice": ("a = slice(-1)", "a = slice(-2)", {"a": "changed"}, []),
    "a Counter in place": ("import collections as c\na = c.Counter('aab')", "a['b'] += 1", {"a": "changed"}, []),
    "an OrderedDict's order": ("import collections as c\na = c.OrderedDict(x=1, y=2)", "a.move_to_end('x')", {"a": "changed"}, []),
    "a defaultdict in place": ("import collections as c\na = c.defaultdict(list, k=[])", "a['k'].append(1)", {"a": "changed"}, []),
    "dates": ("import datetime as d\na = [d.date(2026, 1, 2), d.timedelta(1)]", "a.pop()", {"a": "changed"}, []),
    "times": ("import datetime as d\na = [d.datetime(2026, 1, 2, tzinfo=d.UTC)]", "a[0] += d.timedelta(1)", {"a": "changed"}, []),
    "decimals": ("from decimal import Decimal\na = [Decimal(-1)]", "a[0] -= 1", {"a": "changed"}, []),
    "beside what is too much": ("a = list(range(200_000)); b = 'x' * 80_000_000; c = [1]", "c.append(2)", {"c": "changed"}, ["a", "b"]),
    "a warning": ("import warnings", "warnings.warn('once')", {}, []),
    "another type": ("a = 1", "a = 1.0", {"a": "changed"}, []),
    "deleted": ("a = 1", "del a", {"a": "deleted"}, []),
    "read": ("a = [1]", "len(a)", {}, []),
    "a list in place": ("a = [1, [2]]", "a[1].append(3)", {"a": "changed"}, []),
    "two names of one list": ("a = []; b = a", "b.append(1)", {"a": "changed", "b": "changed"}, []),
    "a dict in place": ("a = {'k': 1}", "a['k'] = 2", {"a": "changed"}, []),
    "the order of a dict": ("a = {'k': 1, 'l': 2}", "a['k'] = a.pop('k')", {"a": "changed"}, []),
    "a set in place": ("a = {1.5}", "a.clear(); a.add(2.5)", {"a": "changed"}, []),
    "a bytearray in place": ("a = bytearray(b'x')", "a[0] = 0", {"a": "changed"}, []),
    "a list that holds itself": ("a = []; a.append(a)", "a.append(1)", {"a": "changed"}, []),
    "an instance in place": ("class C: pass\na = C()", "a.x = 1", {"a": "changed"}, []),
    "deep in an instance": ("class C: pass\na = C(); a.x = [1]", "a.x.append(2)", {"a": "changed"}, []),
    "a class in place": ("class C: pass", "C.x = 1", {"C": "changed"}, []),
    "a function anew": ("def f(): return 1", "def f(): return 2", {"f": "changed"}, []),
    "what a function holds": (
        "def make():\n    kept = []\n    return lambda: kept.append(1)\nf = make(); del make",
        "f()",
        {"f": "changed"},
        [],
    ),
    "a range": ("a = range(3)", "a = range(4)", {"a": "changed"}, []),
    "an import": ("", "import math", {"math": "added"}, []),
    "before an error": ("a = []", "a.append(1); 1 / 0", {"a": "changed"}, []),
    "a foreign object": ("import re; a = re.match('x', 'x')", "1", {}, ["a"]),
    "slots": ("class C:\n    __slots__ = ('x',)\na = C(); del C", "a.x = 1", {}, ["a"]),
    "too much": ("a = list(range(200_000))", "a[0] = 5", {}, ["a"]),
    "its own code is not run": (
        "class C:\n    def __eq__(s, o): 1 / 0\n    def __hash__(s): 1 / 0\n    def __repr__(s): 1 / 0\na = C()",
        "a.x = 1",
        {"a": "changed"},
        [],
    ),
    "a private name": ("", "_a = 1", {"_a": "added"}, []),
}  # fmt: skip
CLEAN = "for _n in [n for n in globals() if not n.startswith('__') and n not in ('In', 'Out', '_n')]: del globals()[_n]"


@pytest.mark.parametrize("name", CELLS)
async def test_what_a_cell_did_is_told(watched: pyrepl3.Session, name: str) -> None:
    before, code, found, unknown = CELLS[name]
    await watched.execute(f"{CLEAN}\ndel _n\n{before}", check=False, result_mode="none")
    result = await watched.execute(code, check=False, result_mode="none")
    assert result.changed is not None
    told = {change.name: change.kind for change in result.changed.found}
    assert (told, result.changed.unknown) == (found, unknown)


async def test_arrays_are_looked_into(watched: pyrepl3.Session) -> None:
    pytest.importorskip("numpy", reason="NumPy is an optional library, of the group 'notebooks'")
    await watched.execute("import numpy\narray = numpy.zeros(1000); view = array[:10]")
    result = await watched.execute("view[3] = 1")
    assert result.changed is not None
    told = {change.name: (change.type_name, change.summary) for change in result.changed.found}
    assert told == {"array": ("ndarray", "float64 (1000,)"), "view": ("ndarray", "float64 (10,)")}


async def test_a_cell_that_was_cancelled_in_the_queue_has_changed_nothing(watched: pyrepl3.Session) -> None:
    await watched.execute("kept = []")
    running = watched.start("import asyncio\nkept.append(1)\nprint('on')\nawait asyncio.sleep(60)")
    async for event in running:
        if isinstance(event, pyrepl3.Output):
            break
    queued = watched.start("never = 1", check=False)
    await queued.cancel()
    assert (await queued).changed is None
    await running.cancel()
    with pytest.raises(pyrepl3.ExecutionCancelled) as cancelled:
        await running
    changed = cancelled.value.result.changed
    assert changed is not None
    assert {change.name: change.kind for change in changed.found if change.name == "kept"} == {
        "kept": "changed"
    }
    assert "never" not in {change.name for change in changed.found}


async def test_a_change_says_type_value_and_size(watched: pyrepl3.Session) -> None:
    result = await watched.execute("words = ['one', 'two']")
    assert result.changed is not None
    (change,) = result.changed.found
    assert (change.name, change.type_name, change.summary) == ("words", "list", "['one', 'two']")
    assert change.size is not None
    assert 0 < change.size < 1000


async def test_nothing_is_told_unless_it_is_asked_for(shared: pyrepl3.Session) -> None:
    assert (await shared.execute("a = 1")).changed is None


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick()) as session:
        yield session
