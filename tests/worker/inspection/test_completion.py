"""Completion of code at a cursor, which runs none of the user's code.

It is long because of its tables of cases, which are best read side by side.
"""

import builtins
import keyword
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_schemas.messages import Complete, Inspect
from pyrepl3_worker.inspection.completion import complete, inspect
from tests.helpers.completion_namespace import ask, at, completed, look, namespace

__all__ = ["namespace"]  # a fixture


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


# --- whatever is typed --------------------------------------------------------------------------------

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
