"""Descriptions of objects at a cursor, which run none of the user's code.

It is long because of its tables of cases, which are best read side by side.
"""

from types import ModuleType
from typing import Any

import pytest

from pyrepl3_schemas.messages import Complete, Inspect
from pyrepl3_worker.inspection.completion import complete, inspect
from tests.helpers.completion_namespace import at, look, namespace

__all__ = ["namespace"]  # a fixture


def test_a_function_is_inspected(namespace: dict[str, object]) -> None:
    found = look(namespace, "gre|et(1)")
    assert found.found
    assert (found.name, found.type_name) == ("greet", "function")
    assert found.signature == "(name, greeting='hi', *, loud=False)"
    assert found.source == 'def greet(name, greeting="hi", *, loud=False):\n    return name\n'
    assert found.repr == "<function greet>"


def test_a_class_is_inspected(namespace: dict[str, object]) -> None:
    found = look(namespace, "Point|")
    assert (found.type_name, found.doc) == ("type", "A point.")
    assert found.signature == "(across, *, up: int | None = 2)"
    assert found.source.startswith("class Point:\n")
    assert found.source.endswith("def helper(what): ...\n")


@pytest.mark.parametrize(
    ("code", "name", "signature"),
    [
        ("greet(|", "greet", "(name, greeting='hi', *, loud=False)"),
        ("greet('|", "greet", "(name, greeting='hi', *, loud=False)"),
        ("greet(nothing|", "greet", "(name, greeting='hi', *, loud=False)"),
        ("greet(1, [2, (3|", "greet", "(name, greeting='hi', *, loud=False)"),
        ("p.move(|", "p.move", "(by=1, /, *rest, speed: str = 'slow', **more) -> int"),
        ("Point.move|", "Point.move", "(self, by=1, /, *rest, speed: str = 'slow', **more) -> int"),
        ("Point.make|", "Point.make", "(of)"),
        ("p.helper|", "p.helper", "(what)"),
        ("fib|", "fib", "(n)"),
        ("wrapper|", "wrapper", "(name, greeting='hi', *, loud=False)"),
        ("partial|", "partial", "(greeting='hi', *, loud=False)"),
        ("len|", "len", "(obj, /)"),
        ("'a'.join|", "'a'.join", "(iterable, /)"),
        ("alpha|", "alpha", ""),
    ],
)
def test_signatures(namespace: dict[str, object], code: str, name: str, signature: str) -> None:
    found = look(namespace, code)
    assert (found.name, found.signature) == (name, signature)


def test_a_name_inside_a_call_goes_before_the_call(namespace: dict[str, object]) -> None:
    assert look(namespace, "greet(alp|ha)").name == "alpha"


def test_a_chain_is_inspected_as_far_as_the_cursor(namespace: dict[str, object]) -> None:
    assert look(namespace, "os.pa|th.join").name == "os.path"
    assert look(namespace, "os.path.jo|in").name == "os.path.join"
    assert look(namespace, "d['kay']|['inner']").type_name == "dict"
    assert look(namespace, "d['kay']['inner'][-1]|").repr == "'deep'"


def test_docs_are_clean(namespace: dict[str, object]) -> None:
    assert look(namespace, "p.move|").doc == "Move it.\n\nBy a step."
    assert look(namespace, "os.path|").doc.startswith("Common operations on Posix pathnames.")
    assert look(namespace, "p|").doc == "A point."


def test_a_property_is_told_of_and_not_evaluated(namespace: dict[str, object]) -> None:
    found = look(namespace, "p.leng|th")
    assert (found.found, found.type_name, found.doc) == (True, "property", "How long.")


def test_values_show_themselves(namespace: dict[str, object]) -> None:
    found = look(namespace, "points|")
    assert (found.type_name, found.repr) == ("list", "[<Point object>]")


@pytest.mark.parametrize("code", ["nothing|", "# alpha|", "if|", "|", "'alpha|'", "1|"])
def test_there_is_nothing_to_say(namespace: dict[str, object], code: str) -> None:
    text, cursor = at(code)
    if text:
        assert inspect(namespace, Inspect(code=text, cursor=cursor)).found is False


def test_variables_are_the_codes_own_names() -> None:
    namespace: dict[str, object] = {"__name__": "__main__", "_hidden": 1, "In": [], "Out": {}, "exit": 5}
    exec("x = [1, 2]\ntext = 'a' * 1000\nclass C: pass\nc = C()\nimport os", namespace)
    found = inspect(namespace, Inspect(code="", cursor=0))
    assert found.found
    shown = {variable.name: variable for variable in found.variables}
    assert set(shown) == {"x", "text", "C", "c", "os", "exit"}
    assert (shown["x"].type_name, shown["x"].repr, shown["x"].length) == ("list", "[1, 2]", 2)
    assert (len(shown["text"].repr) <= 200, shown["text"].length) == (True, 1000)
    assert (shown["c"].repr, shown["c"].length) == ("<C object>", None)
    assert "x" not in {v.name for v in inspect(namespace, Inspect("", 0), frozenset({"x"})).variables}


def test_an_array_tells_the_bytes_of_its_data() -> None:
    numpy = pytest.importorskip("numpy")
    namespace: dict[str, object] = {"array": numpy.zeros(5)}
    [variable] = inspect(namespace, Inspect("", 0)).variables
    assert (variable.type_name, variable.repr, variable.size) == ("ndarray", "<ndarray object>", 40)


# --- the user's code is never run ---------------------------------------------------------------------


class Alarm(BaseException):
    """Something of the user's was called."""


def _explode(*_: Any) -> Any:
    raise Alarm


explode: Any = _explode


class Meta(type):
    __getattr__ = explode
    __dir__ = explode
    __repr__ = explode
    __instancecheck__ = explode
    __subclasscheck__ = explode


TRAPS = (
    "__getattr__", "__getattribute__", "__dir__", "__repr__", "__str__", "__len__", "__iter__", "__getitem__",
    "__bool__", "__call__", "__eq__", "__contains__", "__format__", "__set_name__", "__get__", "__set__",
)  # fmt: skip


def trap() -> Any:
    body: dict[str, Any] = dict.fromkeys(TRAPS, explode)
    body |= {
        "__hash__": object.__hash__,
        "known": 1,
        "prop": property(explode),
        "__class__": property(explode),
    }
    return Meta("Trap", (), body)


class LazyModule(ModuleType):
    __getattr__ = explode
    __getattribute__ = explode


@pytest.mark.parametrize(
    "code",
    [
        "t|", "t.|", "t.prop.|", "t.known.|", "Trap.|", "Trap(|", "t(|", "t[|", "t['|", "box[0].|", "box|",
        "m|", "m.|", "m.attr.|", "d[t].|", "d['k|", "f|", "f(|", "holder.trap.|", "holder.|", "inst.t|",
    ],
)  # fmt: skip
def test_no_code_of_the_users_runs(code: str) -> None:
    cls = trap()
    value = object.__new__(cls)
    namespace: dict[str, object] = {
        "Trap": cls,
        "t": value,
        "box": [value],
        "d": {value: value, "key": value},
        "m": LazyModule("lazy"),
    }
    exec(
        "def f(a=t, *, b: t = t) -> t: ...\nclass Holder: pass\nHolder.trap = t\nholder = Holder()", namespace
    )
    text, cursor = at(code)
    complete(namespace, Complete(code=text, cursor=cursor))
    inspect(namespace, Inspect(code=text, cursor=cursor))
    for variable in inspect(namespace, Inspect(code="", cursor=0)).variables:
        assert variable.repr


def test_what_a_trap_has_is_known_all_the_same() -> None:
    namespace: dict[str, object] = {"t": object.__new__(trap())}
    answer = complete(namespace, Complete(code="t.", cursor=2))
    assert dict(zip(answer.matches, answer.kinds, strict=True)) == {"known": "variable", "prop": "property"}
    assert inspect(namespace, Inspect(code="t", cursor=1)).repr == "<Trap object>"


def test_slots_are_attributes_set_or_not() -> None:
    namespace: dict[str, object] = {}
    exec("class S:\n    __slots__ = ('full', 'bare')\ns = S()\ns.full = 'text'", namespace)
    assert complete(namespace, Complete(code="s.", cursor=2)).matches == ["bare", "full"]
    assert "upper" in complete(namespace, Complete(code="s.full.", cursor=7)).matches
    assert complete(namespace, Complete(code="s.bare.", cursor=7)).matches == []
