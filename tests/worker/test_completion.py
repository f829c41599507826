"""What an editor is told of a session's names, and what the user's code notices of it: nothing.

It is long for its tables of cases, which are best read side by side.
"""

import builtins
import keyword
import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.messages import Complete, Completions, Inspect, Inspection
from pyrepl3_worker.completion import complete, inspect

SETUP = """
import os
import collections as c
import functools

alpha = 1
alphabet = "x"
_private = 2
été = 3
d = {"key one": 1, "kay": {"inner": ["deep"]}, 5: "five", "it's": 0}

class Point:
    "A point."
    origin = 0
    def __init__(self, across, *, up: int | None = 2):
        self.across = across
    def move(self, by=1, /, *rest, speed: str = "slow", **more) -> int:
        "Move it.\\n\\n        By a step."
    @property
    def length(self):
        "How long."
    @classmethod
    def make(cls, of): ...
    @staticmethod
    def helper(what): ...

p = Point(1)
points = [p]

def greet(name, greeting="hi", *, loud=False):
    return name

@functools.cache
def fib(n): ...

@functools.wraps(greet)
def wrapper(*args, **kwargs): ...

partial = functools.partial(greet, "me")
"""


@pytest.fixture(scope="module")
def namespace() -> dict[str, object]:
    lines = [f"{line}\n" for line in SETUP.splitlines()]
    linecache.cache["<cell 1>"] = (len(SETUP), None, lines, "<cell 1>")
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(SETUP, "<cell 1>", "exec", dont_inherit=True), names)
    return names


def at(code: str) -> tuple[str, int]:
    """Take the cursor, `|`, out of the code."""
    before, bar, after = code.partition("|")
    assert bar
    return before + after, len(before)


def ask(namespace: dict[str, object], code: str) -> Completions:
    text, cursor = at(code)
    return complete(namespace, Complete(code=text, cursor=cursor, request_id="r"))


def completed(namespace: dict[str, object], code: str) -> dict[str, str]:
    """Give the whole code as each match would leave it, with the match's kind."""
    text, _ = at(code)
    answer = ask(namespace, code)
    assert len(answer.kinds) == len(answer.matches)
    return {
        text[: answer.cursor_start] + match + text[answer.cursor_end :]: kind
        for match, kind in zip(answer.matches, answer.kinds, strict=True)
    }


def look(namespace: dict[str, object], code: str) -> Inspection:
    text, cursor = at(code)
    return inspect(namespace, Inspect(code=text, cursor=cursor, request_id="r"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("al|", {"alpha": "variable", "alphabet": "variable", "all": "function"}),
        ("Poi|", {"Point": "class"}),
        ("obj|", {"object": "class"}),
        ("ope|", {"open": "function"}),
        ("whi|", {"while": "keyword"}),
        ("matc|", {"match": "keyword"}),
        ("_p|", {"_private": "variable"}),
        ("ét|", {"été": "variable"}),
        ("\N{MATHEMATICAL BOLD SCRIPT SMALL A}lphab|", {"alphabet": "variable"}),
        ("al|pha + 1", {"alphapha + 1": "variable", "alphabetpha + 1": "variable", "allpha + 1": "function"}),
        ("x = 1\nprint(alphab|", {"x = 1\nprint(alphabet": "variable"}),
        ("unfinished = 1\nunf|", {"unfinished = 1\nunfinished": "variable"}),
        ("def helpful(): ...\nhelpf|", {"def helpful(): ...\nhelpful": "function"}),
        ("lambda: alphab|", {"lambda: alphabet": "variable"}),
        ("global alphab|", {"global alphabet": "variable"}),
    ],
)
def test_names(namespace: dict[str, object], code: str, expected: dict[str, str]) -> None:
    assert completed(namespace, code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("p.mo|", {"p.move": "method"}),
        ("p.le|", {"p.length": "property"}),
        ("p.ac|", {"p.across": "variable"}),
        ("p.ma|", {"p.make": "method"}),
        ("Point.or|", {"Point.origin": "variable"}),
        ("p.__init__|", {"p.__init__": "method"}),
        ("p . mo|", {"p . move": "method"}),
        ("points[0].le|", {"points[0].length": "property"}),
        ("d['kay']['inner'][0].capi|", {"d['kay']['inner'][0].capitalize": "method"}),
        ("Point(1).mo|", {"Point(1).move": "method"}),
        ("(p\n   .mo|", {"(p\n   .move": "method"}),
        ("os.path.joi|", {"os.path.join": "function"}),
        ("c.Ordered|", {"c.OrderedDict": "class"}),
        ("'text'.capi|", {"'text'.capitalize": "method"}),
        ("[1, 2].appe|", {"[1, 2].append": "method"}),
        ("{1: 2}.ite|", {"{1: 2}.items": "method"}),
        ("f'{p.mo|", {"f'{p.move": "method"}),
        ("f'{{{p.mo|", {"f'{{{p.move": "method"}),
        ("nothing.at|", {}),
        ("p.length.re|", {}),
        ("p.mo", None),
    ],
)
def test_attributes(namespace: dict[str, object], code: str, expected: dict[str, str] | None) -> None:
    if expected is None:
        assert complete(namespace, Complete(code=code, cursor=2)).matches == [
            "across", "helper", "length", "make", "move", "origin",
        ]  # fmt: skip
    else:
        assert completed(namespace, code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("d['k|", {"d['kay": "key", "d['key one": "key"}),
        ('d["key |', {'d["key one': "key"}),
        ("d[ 'kay' ]['i|", {"d[ 'kay' ]['inner": "key"}),
        ("d['kay|']", {"d['kay']": "key"}),
        ("d['it|", {}),
        ("p['k|", {}),
        ("['k|", {}),
    ],
)
def test_keys(namespace: dict[str, object], code: str, expected: dict[str, str]) -> None:
    assert completed(namespace, code) == expected


def test_keys_come_first_where_a_subscript_begins(namespace: dict[str, object]) -> None:
    answer = ask(namespace, "d[|")
    assert answer.matches[:3] == ['"it\'s"', "'kay'", "'key one'"]
    assert answer.kinds[:4] == ["key", "key", "key", "class"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("greet(gre|", {"greet(greeting=": "argument", "greet(greet": "function"}),
        ("greet(1, lo|", {"greet(1, loud=": "argument", "greet(1, locals": "function"}),
        ("Point(ac|", {"Point(across=": "argument"}),
        ("Point(1, u|", {"Point(1, up=": "argument"}),
        ("p.move(spe|", {"p.move(speed=": "argument"}),
        ("wrapper(gree|", {"wrapper(greeting=": "argument", "wrapper(greet": "function"}),
        ("partial(greet|", {"partial(greeting=": "argument", "partial(greet": "function"}),
        ("print('a', fl|", {"print('a', flush=": "argument", "print('a', float": "class"}),
        ("greet(loud=alphab|", {"greet(loud=alphabet": "variable"}),
        ("greet(greet(1), lou|", {"greet(greet(1), loud=": "argument"}),
        ("greet([lou|", {}),
        ("greet(loud=True, lou|", {}),
        ("def greet(lou|", {}),
    ],
)  # fmt: skip
def test_keyword_arguments(namespace: dict[str, object], code: str, expected: dict[str, str]) -> None:
    assert completed(namespace, code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import jso|", "json"),
        ("import os, jso|", "json"),
        ("import xml.et|", "etree"),
        ("from xml.et|", "etree"),
        ("from os import pardi|", "pardir"),
        ("from os import sep, pardi|", "pardir"),
        ("from os import (sep, pardi|", "pardir"),
        ("from xml import et|", "etree"),
        ("from os |", "import"),
        ("import os |", "as"),
        ("x = 1; import jso|", "json"),
        ("f(1,\nimport jso|", "json"),
    ],
)
def test_imports(namespace: dict[str, object], code: str, expected: str) -> None:
    assert expected in ask(namespace, code).matches


@pytest.mark.parametrize("code", ["import os as al|", "from os import sep as al|", "from . import al|"])
def test_no_names_where_an_import_takes_none(namespace: dict[str, object], code: str) -> None:
    assert ask(namespace, code).matches == []


def test_modules_on_the_path_are_found_and_not_imported(
    namespace: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "quite_new_package"
    package.mkdir()
    for file in (tmp_path / "quite_new_module.py", package / "__init__.py", package / "inner.py"):
        file.write_text("raise SystemExit")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert ask(namespace, "import quite_|").matches == ["quite_new_module", "quite_new_package"]
    assert ask(namespace, "from quite_new_package import |").matches == ["inner"]
    assert ask(namespace, "import quite_new_package.|").matches == ["inner"]
    assert "quite_new_package" not in sys.modules


@pytest.mark.parametrize(
    "code",
    [
        "'al|", '"""al\nal|', "# al|", "x = 1  # al|", "f'al|", "rb'al|",
        "12|", "0x1f|", "1.al|", "def al|", "class al|",
    ],
)  # fmt: skip
def test_nothing_in_strings_comments_numbers_and_new_names(namespace: dict[str, object], code: str) -> None:
    answer = ask(namespace, code)
    assert answer.matches == []
    assert answer.cursor_start <= answer.cursor_end == at(code)[1]


@pytest.mark.parametrize(
    "code", ["'it' + alphab|", "x = 'open\nalphab|", "# done\nalphab|", "'a\\'b' + alphab|"]
)
def test_behind_a_string_or_comment_it_is_code_again(namespace: dict[str, object], code: str) -> None:
    assert ask(namespace, code).matches == ["alphabet"]


def test_private_names_only_when_asked_for(namespace: dict[str, object]) -> None:
    assert not [name for name in ask(namespace, "|").matches if name.startswith("_")]
    assert not [name for name in ask(namespace, "p.|").matches if name.startswith("_")]
    assert "__name__" not in ask(namespace, "_|").matches
    assert "__name__" in ask(namespace, "__|").matches


def test_everything_is_offered_to_an_empty_cell(namespace: dict[str, object]) -> None:
    matches = set(ask(namespace, "|").matches)
    assert {"alpha", "Point", "print", "yield"} <= matches
    assert set(keyword.kwlist) <= matches


@pytest.mark.parametrize("cursor", [-5, 99, 2**40])
def test_a_cursor_outside_of_the_code_is_taken_to_its_end(namespace: dict[str, object], cursor: int) -> None:
    answer = complete(namespace, Complete(code="alphab", cursor=cursor))
    end = 6 if cursor > 0 else 0
    assert (answer.cursor_start, answer.cursor_end) == (0, end)
    assert "alphabet" in answer.matches


def test_matches_are_bounded() -> None:
    names: dict[str, object] = {f"name_{number}": number for number in range(2000)}
    assert len(complete(names, Complete(code="name_", cursor=5)).matches) == 500


def test_the_request_id_comes_back(namespace: dict[str, object]) -> None:
    assert ask(namespace, "al|").request_id == "r"
    assert look(namespace, "nothing|").request_id == "r"
    assert inspect(namespace, Inspect(code="", cursor=0, request_id="v")).request_id == "v"


# --- the user's code is never run -----------------------------------------------------------------------


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


# --- inspection -----------------------------------------------------------------------------------------


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
    assert look(namespace, "d['kay']|['inner']").found is False


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
    namespace: dict[str, object] = {"__name__": "__main__", "_hidden": 1, "In": [], "Out": {}, "exit": exit}
    exec("x = [1, 2]\ntext = 'a' * 1000\nclass C: pass\nc = C()\nimport os", namespace)
    found = inspect(namespace, Inspect(code="", cursor=0))
    assert found.found
    shown = {variable.name: variable for variable in found.variables}
    assert set(shown) == {"x", "text", "C", "c", "os"}
    assert (shown["x"].type_name, shown["x"].repr, shown["x"].size) == ("list", "[1, 2]", 2)
    assert (len(shown["text"].repr) <= 200, shown["text"].size) == (True, 1000)
    assert (shown["c"].repr, shown["c"].size) == ("<C object>", None)
    assert "x" not in {v.name for v in inspect(namespace, Inspect("", 0), frozenset({"x"})).variables}


def test_an_array_is_no_sized_built_in() -> None:
    numpy = pytest.importorskip("numpy")
    namespace: dict[str, object] = {"array": numpy.zeros(5)}
    [variable] = inspect(namespace, Inspect("", 0)).variables
    assert (variable.type_name, variable.repr, variable.size) == ("ndarray", "<ndarray object>", None)


# --- whatever is typed ----------------------------------------------------------------------------------

pieces = st.sampled_from(
    ["alpha", "p", ".", "(", ")", "[", "]", "{", "}", "'", '"', "'''", "f'", "#", "\n", "\\", " ", ",", "=",
     ":", "import ", "from ", "def ", "1", "é", "\ud800", "lambda", "d['", ";", "as ", "\t", "\0", "\r", "\f"]
)  # fmt: skip


@given(st.lists(pieces, max_size=25).map("".join) | st.text(max_size=40), st.integers(-3, 80))
def test_any_code_with_any_cursor_gets_an_answer(code: str, cursor: int) -> None:
    namespace: dict[str, object] = {"alpha": 1, "p": print, "d": {"key": [1]}}
    answer = complete(namespace, Complete(code=code, cursor=cursor))
    assert 0 <= answer.cursor_start <= answer.cursor_end <= len(code)
    "".join(answer.matches).encode("utf-8")
    inspect(namespace, Inspect(code=code, cursor=cursor)).name.encode("utf-8")


def test_a_real_file_can_be_asked_about_anywhere(namespace: dict[str, object]) -> None:
    code = Path(__file__).read_text(encoding="utf-8")[:6000]
    for cursor in range(0, len(code), 23):
        complete(namespace, Complete(code=code, cursor=cursor))
        inspect(namespace, Inspect(code=code, cursor=cursor))


def test_a_very_long_cell_is_answered_from_its_end(namespace: dict[str, object]) -> None:
    code = "x = 'text'  # comment\n" * 50_000 + "alphab"
    assert complete(namespace, Complete(code=code, cursor=len(code))).matches == ["alphabet"]


def test_builtins_that_the_code_has_deleted_are_missed_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(builtins, "print")
    assert complete({}, Complete(code="prin", cursor=4)).matches == []
