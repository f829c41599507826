"""A session's names after its worker has died: what is restored, and what is reported as lost."""

# ruff: noqa: E501 - tables, one case a line

import builtins
import linecache
import sys
import traceback
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.messages import Restore
from tests.helpers.checkpoint_namespaces import HIDDEN, Worker


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


# --- values and their identity ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "1", "10**400", "'text'", "'\\ud800'", "b'bytes'", "None", "...", "1.5", "float('inf')", "2j", "True", "range(5)",
        "(1, (2, 'x'))", "[1, [2]]", "{'a': {1: 2}}", "{1, 2}", "frozenset({1})", "bytearray(b'x')", "slice(1, 2)",
        "__import__('datetime').date(2024, 1, 2)", "__import__('decimal').Decimal('1.10')", "__import__('fractions').Fraction(1, 3)",
        "__import__('pathlib').PurePosixPath('/a')", "__import__('collections').deque([1], 3)", "len", "dict", "[].append",
        "__import__('collections').Counter('aab')", "__import__('os').environ", "__import__('types').FunctionType",
        "__import__('io').StringIO('text')", "__import__('types').SimpleNamespace(a=1)", "type(None)",
    ],
)  # fmt: skip
def test_values_come_back(value: str) -> None:
    worker = Worker(f"x = {value}")
    before = worker.value("repr(x)")
    assert worker.reborn().value("repr(x)").split(" at 0x")[0] == before.split(" at 0x")[0]


def test_two_names_for_one_list_stay_one_list() -> None:
    worker = Worker("a = b = [1]\nc = {'inner': a}\nother = [1]").reborn()
    worker.run("a.append(2)")
    assert worker.value("b is a and c['inner'] is a and other is not a")
    assert worker.value("c") == {"inner": [1, 2]}


def test_a_part_that_two_names_share_stays_shared() -> None:
    worker = Worker(
        "class Box: pass\npart = Box()\nx, y = Box(), Box()\nx.part = y.part = part\ndel part"
    ).reborn()
    assert worker.value("x.part is y.part and type(x.part) is Box")


def test_structures_that_hold_themselves_or_each_other() -> None:
    worker = Worker("a = []\na.append(a)\nx, y = {}, {}\nx['y'], y['x'] = y, x").reborn()
    assert worker.value("a[0] is a and x['y'] is y and y['x'] is x")


def test_sharing_holds_from_checkpoint_to_checkpoint() -> None:
    worker = Worker("a = [1]")
    worker.take()
    worker.run("b = a")
    worker.take()
    worker.run("c = {'b': b}")
    again = worker.reborn()
    assert again.value("a is b and c['b'] is b")
    again.run("b = [9]\nc['b'] = None")
    last = again.reborn()
    assert last.value("a == [1] and b == [9] and a is not b")


shared = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), shared, max_size=6), st.data())
def test_any_names_come_back_equal_and_as_shared_as_they_were(
    names: dict[str, Any], data: st.DataObject
) -> None:
    main = sys.modules["__main__"]
    try:
        worker = Worker()
        pool = [data.draw(shared) for _ in range(2)]
        for name, value in names.items():
            part = data.draw(st.sampled_from([value, [value, pool[0]], {"p": pool[1], "v": value}, pool[0]]))
            worker.names[name] = part
        other = worker.reborn()
        mine = {name: value for name, value in worker.names.items() if name not in HIDDEN}
        theirs = {name: value for name, value in other.names.items() if name not in HIDDEN}
        assert theirs == mine
        assert list(container_numbers(theirs)) == list(container_numbers(mine))
    finally:
        sys.modules["__main__"] = main


def container_numbers(names: dict[str, Any]) -> Iterator[int]:
    """Walk through all values; yield each mutable container's number, counted by first appearance."""
    numbers: dict[int, int] = {}
    waiting: list[Any] = [names[name] for name in sorted(names)]
    while waiting:
        value = waiting.pop()
        kind = cast("type[object]", type(value))
        if kind in (list, dict, set):
            known = id(value) in numbers
            yield numbers.setdefault(id(value), len(numbers))
            if known:
                continue
        if kind in (list, tuple):
            waiting.extend(value)
        elif kind is dict:
            waiting.extend(value[key] for key in sorted(value))


# --- what is left out, and reported ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x = (n for n in [1])\nnext(x)", "a generator's place in its code can't be saved"),
        ("async def f(): ...\nx = f()\nx.close()", "a coroutine's place in its code can't be saved"),
        ("async def f(): yield\nx = f()", "an asynchronous generator's place in its code can't be saved"),
        ("import threading\nx = threading.Lock()\nx.acquire()", "a lock that is held belongs to the thread that holds it"),
        ("import threading\nx = threading.RLock()\nx.acquire()", "a lock that is held belongs to the thread that holds it"),
        ("import threading\nx = threading.Thread()", "running code can't be saved; start it again"),
        ("import contextvars\nx = contextvars.copy_context()", "a context and its tokens belong to running code"),
        ("import weakref\nclass A: pass\na = A()\nx = weakref.finalize(a, print)", "a finalizer belongs to an object of one process"),
        ("import sqlite3\nx = sqlite3.connect(':memory:')\nx.close()", "a database connection belongs to one process and thread (Cannot operate on a closed database.)"),
        ("import socket\nx = socket.socket()\nx.close()", "a connection belongs to one process; connect again"),
        ("import sys\nx = open(0, closefd=False)", "an open file that has no path belongs to one process"),
        ("import asyncio\nx = asyncio.new_event_loop()\nx.close()", "an event loop belongs to one process"),
        ("import types\nx = types.ModuleType('mine')", "a module that was made by hand can't be imported again"),
        ("x = [globals()]", "it holds the session's whole namespace (globals())"),
        ("x = []\nfor _ in range(100_000): x = [x]", "it is nested too deeply"),
        ("class A:\n def __reduce__(self): raise ValueError('no')\nx = A()", "ValueError: no"),
        ("class A:\n def __getstate__(self): return 1 / 0\nx = A()", "ZeroDivisionError: division by zero"),
        ("class E(Exception):\n def __str__(self): 1 / 0\nclass A:\n def __reduce__(self): raise E\nx = A()", "E: (its text raises ZeroDivisionError)"),
    ],
)  # fmt: skip
def test_what_cannot_be_saved_is_reported_and_takes_nothing_with_it(code: str, reason: str) -> None:
    worker = Worker(f"before = [1]\n{code}\nafter = [2]")
    answer = worker.take()
    [unsaved] = answer.unsaved
    assert (unsaved.name, unsaved.reason) == ("x", reason)
    assert unsaved.type_name == type(worker.names["x"]).__name__
    other = Worker()
    restored = other.restore(answer, worker.store)
    assert restored.unsaved == answer.unsaved
    assert other.value("before, after") == ([1], [2])
    assert "x" not in other.names


def test_the_reason_tells_what_it_was_inside() -> None:
    worker = Worker("import threading\nx = {'deep': [threading.Thread()]}")
    assert worker.unsaved() == {"x": "running code can't be saved; start it again (inside, at a Thread)"}


def test_what_shares_with_something_that_cannot_be_saved_is_saved_alone() -> None:
    worker = Worker(
        "part = [1]\nbad = [part, __import__('threading').Thread()]\ngood = [part]\nalso = [part]"
    )
    answer = worker.take()
    assert [unsaved.name for unsaved in answer.unsaved] == ["bad"]
    other = Worker()
    other.restore(answer, worker.store)
    assert other.value("good[0] is also[0] is part")


def test_a_class_that_cannot_be_saved_takes_its_instances_along() -> None:
    worker = Worker(
        "import threading\nclass A: lock = threading.Thread()\nclass B(A): pass\na, b = A(), B()\nx = 1"
    )
    assert worker.unsaved() == {
        "A": "running code can't be saved; start it again (inside, at a Thread)",
        "B": "it needs A, which can't be saved",
        "a": "it needs A, which can't be saved",
        "b": "it needs B, which can't be saved",
    }


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "TimeoutError", "BaseException"])
def test_whatever_an_object_raises_is_its_own_affair(error: str) -> None:
    worker = Worker(f"class A:\n def __reduce__(self): raise {error}('no')\nx = A()\ny = [1]")
    assert worker.unsaved() == {"x": f"{error}: no"}
    worker.run(
        f"class A:\n def __reduce__(self): return A, ()\n def __new__(cls): raise {error}('never')\nx = object.__new__(A)"
    )
    restored = Worker().restore(worker.take(), worker.store)
    assert {unsaved.name: unsaved.reason for unsaved in restored.unsaved} == {"x": f"{error}: never"}
    assert "y" in restored.names


def test_a_reason_without_end_is_cut() -> None:
    worker = Worker("class A:\n def __reduce__(self): raise ValueError('x' * 10**6)\nx = A()")
    assert len(worker.unsaved()["x"]) < 2000


def test_a_name_that_is_no_text_is_reported() -> None:
    worker = Worker("globals()['\\ud800'] = 1")
    answer = worker.take()
    encode(answer)
    assert [unsaved.name for unsaved in answer.unsaved] == ["\\ud800"]


# --- modules, globals, the worker's own ---------------------------------------------------------------


def test_modules_are_imported_again() -> None:
    worker = Worker("import os.path as p, sys\nfrom math import sqrt\nholder = [p]").reborn()
    assert worker.value("p is __import__('os').path and holder[0] is p and sqrt(4)") == 2


def test_a_module_that_is_gone_is_reported() -> None:
    sys.modules["gone_tomorrow"] = module = type(sys)("gone_tomorrow")
    try:
        worker = Worker("import gone_tomorrow\nx = 1\nholder = [gone_tomorrow]")
        assert worker.names["gone_tomorrow"] is module
        answer = worker.take()
    finally:
        del sys.modules["gone_tomorrow"]
    restored = Worker().restore(answer, worker.store)
    assert restored.names == ["x"]
    assert {(u.name, u.type_name): u.reason for u in restored.unsaved} == {
        ("gone_tomorrow", "module"): "importing gone_tomorrow failed: ModuleNotFoundError: No module named 'gone_tomorrow'",
        ("holder", "list"): "ModuleNotFoundError: No module named 'gone_tomorrow'",
    }  # fmt: skip


def test_a_name_for_the_namespace_itself_comes_back() -> None:
    worker = Worker("mine = globals()").reborn()
    assert worker.value("mine is globals()")


def test_hidden_names_are_neither_saved_nor_touched() -> None:
    worker = Worker("In = [1]\n_ = 5\nx = 1")
    other = Worker("In = [2]\n_ = 6")
    restored = other.restore(worker.take(), worker.store)
    assert restored.names == ["x"]
    assert (other.names["In"], other.names["_"]) == ([2], 6)


def test_a_class_that_was_also_the_last_result_goes_by_its_own_name() -> None:
    worker = Worker("_ = None\nclass A: pass\n_ = A\na = A()").reborn()
    assert worker.value("type(a) is A")


def provide_search(monkeypatch: pytest.MonkeyPatch) -> object:
    """Put a host function into builtins, as a session does; return it."""
    from pyrepl3_worker.host_calls.calls import HostCaller

    search = HostCaller.make_capability(object.__new__(HostCaller), "search", "(query)", "")
    monkeypatch.setattr(builtins, "search", search, raising=False)
    return search


def test_capabilities_are_the_new_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    provide_search(monkeypatch)
    worker = Worker()
    worker.run("import functools\nfind = search\npart = functools.partial(search, 1)\nx = 1")
    answer = worker.take()
    assert not answer.unsaved
    own = provide_search(monkeypatch)
    other = Worker()
    other.names["search"] = "the code's own, and not of the checkpoint"
    restored = other.restore(answer, worker.store)
    assert "search" not in restored.names
    assert "search" not in other.names
    assert other.names["find"] is other.names["part"].func is own


def test_a_capability_that_is_not_offered_any_more_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    with monkeypatch.context() as patch:
        provide_search(patch)
        worker.run("find = search\nx = 1")
        answer = worker.take()
    restored = Worker().restore(answer, worker.store)
    assert restored.names == ["x"]
    [unsaved] = restored.unsaved
    assert unsaved.name == "find"
    assert "'search'" in unsaved.reason


def test_the_workers_stand_ins_go_by_the_name_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from pyrepl3_worker.host_calls.calls import HostCaller
    from pyrepl3_worker.session.patched_functions import make_sleep

    monkeypatch.setattr(time, "sleep", make_sleep(object.__new__(HostCaller)))
    worker = Worker("from time import sleep\nwait = sleep").reborn()
    assert worker.value("sleep is wait is __import__('time').sleep")


def test_a_part_of_the_worker_is_not_dragged_along() -> None:
    worker = Worker("from pyrepl3_worker.execution.metrics import ExecutionMetrics\nx = [ExecutionMetrics()]")
    assert worker.unsaved() == {"x": "it is a part of the worker (inside, at a ExecutionMetrics)"}


# --- restoring ----------------------------------------------------------------------------------------


def test_restoring_takes_the_namespace_back_to_what_it_was() -> None:
    worker = Worker("x = [1]\ny = 'kept'\nlock = __import__('threading').Thread()")
    lock = worker.names["lock"]
    answer = worker.take()
    worker.run("x.append(2)\ny = 'changed'\nnew = 1\ndef f(): ...")
    restored = worker.restore(answer)
    assert worker.value("(x, y)") == ([1], "kept")
    assert "new" not in worker.names
    assert "f" not in worker.names
    assert worker.names["lock"] is lock, "what could not be saved is left as it is"
    assert restored.names == ["y", "x"]
    assert [unsaved.name for unsaved in restored.unsaved] == ["lock"]


def test_an_object_that_fails_to_come_back_takes_nothing_with_it() -> None:
    worker = Worker(
        "class A:\n def __setstate__(self, state): raise ValueError('never')\na = A()\na.x = 1\ny = [2]"
    )
    other = Worker()
    restored = other.restore(worker.take(), worker.store)
    [unsaved] = restored.unsaved
    assert (unsaved.name, unsaved.type_name, unsaved.reason) == ("a", "A", "ValueError: never")
    assert other.value("y") == [2]
    assert "a" not in other.names


def test_an_object_may_use_the_namespace_while_it_comes_back() -> None:
    worker = Worker(
        """
class A:
    def __init__(self): self.x = 1
    def __setstate__(self, state): self.x = helper(table)
first = A()
def helper(values): return values["k"] + offset
table = {"k": 41}
offset = 1
"""
    ).reborn()
    assert worker.value("first.x") == 42


def test_a_missing_or_damaged_blob_costs_only_its_names() -> None:
    worker = Worker("small = 1\nbig = list(range(1000))\nother = list(range(2000))")
    answer = worker.take()
    first, second = answer.blobs
    blobs = {second: answer.blobs[second][:-1] + b"?"}
    restored = Worker().restore(answer, blobs)
    assert restored.names == ["small"]
    assert {unsaved.name: unsaved.reason for unsaved in restored.unsaved} == {
        "big": f"the checkpoint lacks blob {first[:16]}…",
        "other": f"blob {second[:16]}… is damaged",
    }


@pytest.mark.parametrize("data", [b"\xff", b"\x00", b"\x80", b"nonsense"])
def test_data_that_is_no_checkpoint_is_refused_and_changes_nothing(data: bytes) -> None:
    worker = Worker("x = 1")
    with pytest.raises(LocalProtocolError, match="this is no checkpoint"):
        worker.checkpointer.restore(Restore(checkpoint_id="c", data=data))
    assert worker.value("x") == 1


def test_tracebacks_show_the_source_of_restored_functions() -> None:
    worker = Worker("def fails():\n    return 1 / 0  # right here")
    filename = worker.names["fails"].__code__.co_filename
    answer = worker.take()
    assert linecache.cache.pop(filename)
    other = Worker()
    other.restore(answer, worker.store)
    with pytest.raises(ZeroDivisionError) as caught:
        other.names["fails"]()
    assert "# right here" in "".join(traceback.format_exception(caught.value))
