"""What editors ask and say: where code is from, whether it is complete, what its names are. As tables."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run, value
from tests.helpers.tables import check_rows

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(scope="module")
async def editor() -> AsyncIterator[pyrepl3.Session]:
    # Without checkpoints: an answer in the middle of one asks no classes.
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        yield session


# --- where code is from ---------------------------------------------------------------------------------------

FILE = "/home/ada/plot.py"
PLACES: list[tuple[str, str, int, list[str]]] = [
    ("a traceback", "def f(x):\n    return 1 / x\nf(0)", 10, [f'File "{FILE}", line 12, in <module>\n    f(0)', f'File "{FILE}", line 11, in f\n    return 1 / x']),
    ("of a function of an earlier cell", "f(0)", 40, [f'File "{FILE}", line 40, in <module>', "line 11, in f\n    return 1 / x"]),
    ("in a coroutine", "import asyncio\nawait asyncio.sleep(0)\n1 / 0", 5, [f'File "{FILE}", line 7, in <module>\n    1 / 0']),
    ("after a return", "if True: return 1 / 0", 5, [f'File "{FILE}", line 5, in <module>\n    if True: return 1 / 0']),
    ("a SyntaxError", "x = 1\ny = = 2", 8, [f'File "{FILE}", line 9\n    y = = 2\n        ^']),
    ("a SyntaxError of a later pass", "'é'\n'é'; break", 3, [f'File "{FILE}", line 4\n    \'é\'; break\n         ^^^^^']),
    ("a warning", "import warnings\nwarnings.warn('w')", 20, [f"{FILE}:21: UserWarning: w\n  warnings.warn('w')"]),
    ("a warning of the compiler", "\nx = '\\d'", 30, [f"{FILE}:31: SyntaxWarning: "]),
    ("what code prints", "import traceback\ntry: f(0)\nexcept ZeroDivisionError: traceback.print_exc()", 50, [f'File "{FILE}", line 51, in <module>\n    try: f(0)', "line 11, in f"]),
    ("inspect.getsource", "import inspect\nprint(inspect.getsource(f), inspect.getsourcefile(f), f.__code__.co_firstlineno)", 1, [f"def f(x):\n    return 1 / x\n {FILE} 10"]),
    ("linecache", "import linecache\nprint(repr(linecache.getline('/home/ada/plot.py', 11)))", 60, ["'    return 1 / x\\n'"]),
    ("a line of IPython", "%ls", 7, [f'File "{FILE}", line 7\n    %ls', "a line magic of IPython"]),
    ("deep code", "1 / 0 + " + "+".join(["1"] * 1500), 9, [f'File "{FILE}", line 9, in <module>']),
    ("there is no __file__", "print('__file__' in globals())", 1, ["False"]),
]  # fmt: skip


async def test_what_went_wrong_leads_to_the_editors_file(editor: pyrepl3.Session) -> None:
    async def check(code: str, first_line: int, parts: list[str]) -> None:
        result = await run(editor, code, filename=FILE, first_line=first_line)
        text = result.stdout + result.stderr + (result.error.traceback if result.error else "")
        for part in parts:
            assert part in text

    await check_rows(PLACES, check)


async def test_frames_and_suggestions_are_of_the_place(editor: pyrepl3.Session) -> None:
    failed = (await run(editor, "x = 1\n1 / 0", filename="untitled:1", first_line=7)).error
    assert failed is not None
    assert [(frame.filename, frame.lineno, frame.line) for frame in failed.frames] == [
        ("untitled:1", 8, "1 / 0")
    ]
    broken = (await run(editor, "if x\n    y = 1", filename=FILE, first_line=100)).error
    assert broken is not None
    assert (broken.suggestion, broken.frames[0].lineno) == ("if x:\n    y = 1", 100)


async def test_what_is_sent_wins_over_what_is_on_disk(editor: pyrepl3.Session, tmp_path: Path) -> None:
    path = tmp_path / "saved.py"
    path.write_text("# one\n# two\n# three\n# four\n")
    failed = (await run(editor, "x = 5\ny = = x", filename=path, first_line=2)).error
    assert failed is not None
    assert failed.traceback.startswith(f'  File "{path}", line 3\n    y = = x\n        ^\n')
    lines = f"import linecache\n[linecache.getline({str(path)!r}, i) for i in range(1, 6)]"
    assert await value(editor, lines) == ["# one\n", "x = 5\n", "y = = x\n", "# four\n", ""]
    assert path.read_text().startswith("# one\n# two\n")


async def test_in_keeps_what_was_sent(editor: pyrepl3.Session) -> None:
    await run(editor, "6 * 7", filename=FILE, first_line=90)
    assert await value(editor, "In[-2]") == "6 * 7"


async def test_the_same_code_from_two_places_is_two_cells(editor: pyrepl3.Session) -> None:
    lines: list[int] = []
    for first_line in (3, 30, 3):
        failed = (await run(editor, "{}['same']", filename=FILE, first_line=first_line)).error
        assert failed is not None
        lines.append(failed.frames[0].lineno)
    assert lines == [3, 30, 3]
    other = (await run(editor, "{}['same']")).error
    assert other is not None
    assert other.frames[0].filename.startswith("<cell ")


async def test_a_restored_function_has_its_file_and_lines(session: pyrepl3.Session) -> None:
    await run(session, "def f(x):\n    return 1 / x", filename=FILE, first_line=10)
    saved = await session.checkpoint()
    await session.restart()
    await session.restore(saved.checkpoint_id)
    failed = (await run(session, "f(0)")).error
    assert failed is not None
    assert f'File "{FILE}", line 11, in f\n    return 1 / x\n' in failed.traceback


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("empty", {"filename": ""}, ValueError, "filename must be 1 to 4096 printable characters"),
    ("with a new line", {"filename": "a\nb"}, ValueError, "filename must be 1 to 4096 printable characters"),
    ("a number", {"filename": 3}, TypeError, "filename must be a string or a path, not 3"),
    ("a cell's", {"filename": "<cell 1>"}, ValueError, "such names are made by the session"),
    ("line 0", {"filename": "a", "first_line": 0}, ValueError, "first_line must be between 1 and 1000000, not 0"),
    ("a line of no file", {"first_line": 3}, ValueError, "name it by filename="),
    ("no such policy", {"on_error": "stop"}, ValueError, "on_error must be one of ['continue', 'stop_queue']"),
]  # fmt: skip


async def test_wrong_arguments_are_refused(editor: pyrepl3.Session) -> None:
    async def check(options: dict[str, Any], error: type[Exception], text: str) -> None:
        with pytest.raises(error) as caught:
            await editor.execute("1", **options)
        assert text in str(caught.value)

    await check_rows(WRONG, check)


# --- is it complete? ------------------------------------------------------------------------------------------

COMPLETENESS: list[tuple[str, str, str | None]] = [
    ("a = 1", "complete", None),
    ("", "complete", None),
    ("# only a comment", "complete", None),
    ("await x", "complete", None),
    ("return 5", "complete", None),
    ("class A: pass", "complete", None),
    ("1\\\n+2", "complete", None),
    ("x = 1;", "complete", None),
    (">>> x = 1", "complete", None),
    ("In [1]: x = 1", "complete", None),
    ("for i in y:\n    print(i)\n", "complete", None),
    ("def f():\n    return 1\n\n", "complete", None),
    ("for a in range(5):", "incomplete", "    "),
    ("for a in range(5):\n    if a > 0:", "incomplete", "        "),
    ("for i in y:\n    print(i)", "incomplete", "    "),
    ("async def f():\n    await x", "incomplete", "    "),
    ("if x:\n    y\nelse:", "incomplete", "    "),
    ("try:\n    x", "incomplete", "    "),
    ("match x:\n    case 1:", "incomplete", "        "),
    ("@decorated", "incomplete", ""),
    ("x = (", "incomplete", ""),
    ("f(a,\n  b", "incomplete", "  "),
    ('x = """', "incomplete", ""),
    ("x = 1 + \\", "incomplete", ""),
    (">>> def f():", "incomplete", "    "),
    ("raise = 2", "invalid", None),
    ("x = = 1", "invalid", None),
    ("(\n))", "invalid", None),
    ("x = 'open", "invalid", None),
    ("break", "invalid", None),
    ("def a():\n x=1\n global x", "invalid", None),
    ("%timeit x", "invalid", None),
    ("\0", "invalid", None),
]


async def test_an_editor_is_told_whether_code_is_complete(editor: pyrepl3.Session) -> None:
    async def check(code: str, status: str, indent: str | None) -> None:
        answer = await editor.is_complete(code)
        assert (answer.status, answer.indent) == (status, indent or "")

    await check_rows(((code, code, status, indent) for code, status, indent in COMPLETENESS), check)


async def test_also_while_code_runs_and_nothing_of_it_is_run(editor: pyrepl3.Session) -> None:
    execution = editor.start("print('ready')\nwhile True: pass", check=False)
    async for event in execution:
        if isinstance(event, pyrepl3.Output):
            break
    assert (await editor.is_complete("ran = 1\nfor x in y:")).status == "incomplete"
    await execution.cancel()
    assert await value(editor, "'ran' in globals()") is False
    with pytest.raises(TypeError, match="code must be a string"):
        await editor.is_complete(5)  # type: ignore[arg-type]


async def test_in_ipythons_syntax_a_magic_is_complete() -> None:
    pytest.importorskip("IPython", reason="IPython's syntax needs IPython")
    async with pyrepl3.open_session(config=quick(syntax="ipython")) as session:
        assert (await session.is_complete("%timeit 1")).status == "complete"
        assert (await session.is_complete("for x in y:")).indent == "    "


# --- completion, inspection, variables --------------------------------------------------------------------------

SETUP = """import collections, os
d = {"alpha": 1, "beta": 2}
od = collections.OrderedDict(gamma=1)
dd = collections.defaultdict(list, delta=[])
um = collections.UserDict(epsilon=1)
cm = collections.ChainMap({"zeta": 1}, {"eta": 2})
rows = [d, {"theta": [1, 2]}]
words = ["one", "two"]
"""
COMPLETIONS: list[tuple[str, str, list[str]]] = [
    ("a dict", "d['a", ["alpha"]),
    ("a dict, before a quote", "d[", ["'alpha'", "'beta'"]),
    ("an OrderedDict", "od['", ["gamma"]),
    ("a defaultdict", "dd['de", ["delta"]),
    ("a UserDict", "um['", ["epsilon"]),
    ("a ChainMap", "cm['", ["eta", "zeta"]),
    ("os.environ", "os.environ['PYREPL3_TES", ["PYREPL3_TEST"]),
    ("a dict in a list", "rows[-1]['", ["theta"]),
    ("a path", "open('/etc/hostn", ["hostname"]),
    ("a folder", "open('/usr/li", ["lib/"]),
]


async def test_keys_and_paths_are_completed(editor: pyrepl3.Session) -> None:
    await run(editor, f"{SETUP}os.environ['PYREPL3_TEST'] = '1'")

    async def check(code: str, expected: list[str]) -> None:
        matches = (await editor.complete(code)).matches
        assert set(expected) <= set(matches[: max(len(expected), 3)])

    await check_rows(COMPLETIONS, check)


OWN_ANSWERS = """import time, types, asyncio
class Answers:
    known = 1
    def __dir__(self): return ["column_a", "column_b", "not a name", 5]
    def _ipython_key_completions_(self): return ["key one", "key two", 3]
class Meta(type):
    def __dir__(cls): return ["made"]
class Made(metaclass=Meta): known = 1
class Raises(Answers):
    def __dir__(self): raise KeyError("no")
    def _ipython_key_completions_(self): raise SystemExit
class Hangs(Answers):
    def __dir__(self):
        while True:
            try: time.sleep(60)
            except BaseException: pass
    def _ipython_key_completions_(self):
        while True: pass
class Endless(Answers):
    def __dir__(self):
        while True: yield "again"
class Nothing(Answers):
    def __dir__(self): return None
class Asks(Answers):
    def __dir__(self): return [input("name? ")]
class Loops(Answers):
    def __dir__(self): return asyncio.run(asyncio.sleep(0))
class Keyed(dict):
    def _ipython_key_completions_(self): return ["told"]
answers, raises, hangs, endless, nothing = Answers(), Raises(), Hangs(), Endless(), Nothing()
asks, loops = Asks(), Loops()
keyed = Keyed(held=1)
lazy = types.ModuleType("lazy")
lazy.known = 1
lazy.__dir__ = lambda: ["loaded_later"]
"""
ANSWERED: list[tuple[str, str, list[str]]] = [
    ("__dir__", "answers.", ["column_a", "column_b", "known"]),
    ("begun", "answers.col", ["column_a", "column_b"]),
    ("of an instance that is not made", "Answers().", ["known"]),
    ("of a metaclass", "Made.", ["known", "made"]),
    ("of a module", "lazy.", ["known", "loaded_later"]),
    ("that raises", "raises.", ["known"]),
    ("that hangs", "hangs.", ["known"]),
    ("that does not end", "endless.kn", ["known"]),
    ("that returns nothing", "nothing.", ["known"]),
    ("that asks a person", "asks.", ["known"]),
    ("that runs a loop", "loops.", ["known"]),
    ("keys", "answers['", ["key one", "key two"]),
    ("begun keys", "answers['key t", ["key two"]),
    ("before a quote", "answers[", ["'key one'", "'key two'"]),
    ("beside those of a dict", "keyed['", ["held", "told"]),
    ("keys that raise", "raises['", []),
    ("keys that hang", "hangs['", []),
]


async def test_classes_answer_an_editor(editor: pyrepl3.Session) -> None:
    await run(editor, OWN_ANSWERS)

    async def check(code: str, expected: list[str]) -> None:
        matches = (await editor.complete(code)).matches
        assert matches[: max(len(expected), 1)] == expected

    await check_rows(ANSWERED, check)
    assert await value(editor, "[6 * 7, hangs.known]") == [42, 1]


async def test_while_code_runs_no_class_is_asked(editor: pyrepl3.Session) -> None:
    await run(editor, OWN_ANSWERS)
    for code in ("print('ready')\nwhile True: pass", "print('ready')\nawait asyncio.sleep(600)"):
        execution = editor.start(code, check=False)
        async for event in execution:
            if isinstance(event, pyrepl3.Output):
                break
        assert (await editor.complete("answers.")).matches == ["known"]
        await execution.cancel()
    assert (await editor.complete("answers.")).matches == ["column_a", "column_b", "known"]


MAGICS: list[tuple[str, str, list[str], int]] = [
    ("a line magic", "%timei", ["%timeit", "%%timeit"], 0),
    ("a cell magic", "%%timei", ["%%timeit"], 0),
    ("behind a first line", "x = 1\n%timei", ["%timeit"], 6),
    ("a cell magic behind one", "x = 1\n%%timei", [], 8),
    ("in a block", "if x:\n    %timei", ["%timeit"], 10),
    ("as a value", "y = %timei", ["%timeit"], 4),
    ("an own one", "%my_ow", ["%my_own"], 0),
    ("an operator", "y = 5 %le", ["len"], 7),
    ("in brackets", "y = (5\n%le", ["len"], 8),
]


async def test_magics_are_completed_and_complete() -> None:
    pytest.importorskip("IPython", reason="IPython's syntax needs IPython")
    async with pyrepl3.open_session(config=quick(syntax="ipython")) as session:
        await run(
            session, "get_ipython().register_magic_function(lambda line: print('ran'), magic_name='my_own')"
        )

        async def check(code: str, expected: list[str], start: int) -> None:
            answer = await session.complete(code)
            assert sorted(answer.matches) == sorted(expected)
            assert not expected or answer.cursor_start == start

        await check_rows(MAGICS, check)
        every = await session.complete("%")
        assert {"%time", "%%time", "%%bash", "%cd"} <= set(every.matches)
        assert set(every.kinds) == {"magic"}
        for code, status in (
            ("%%bash\nls", "incomplete"),
            ("%%bash\nls\n\n", "complete"),
            ("%%bash", "incomplete"),
            ("y = !ls", "complete"),
            ("len?", "complete"),
        ):
            assert (await session.is_complete(code)).status == status


async def test_without_ipythons_syntax_there_are_no_magics(editor: pyrepl3.Session) -> None:
    assert not [match for match in (await editor.complete("%")).matches if match.startswith("%")]


async def test_an_item_of_a_container_is_inspected(editor: pyrepl3.Session) -> None:
    await run(editor, SETUP)
    for code, shown in (("words[0]", "'one'"), ("words[-1]", "'two'"), ("rows[1]['theta'][1]", "2")):
        found = await editor.inspect(code)
        assert (found.name, found.repr) == (code, shown)


OBJECTS = """import dataclasses, functools, inspect
class Base:
    "A base."
    def run(self, fast=False):
        "Runs it."
    @property
    def area(self):
        "How large."
        return print("ran")
    @functools.cached_property
    def cost(self):
        "How dear."
    @classmethod
    def make(cls): "Makes one."
class Thing(Base):
    def run(self, fast=False, *, far=1): return super().run()
    @property
    def area(self): return print("ran")
    @functools.cached_property
    def cost(self): return print("ran")
    @classmethod
    def make(cls): ...
    def own(self): ...
class Names(list):
    def append(self, item): ...
class Stated:
    def __init__(self, *args, **kwargs): ...
    def __call__(self, **kwargs): ...
class Told:
    __doc__ = property(lambda self: print("ran"))
    __signature__ = property(lambda self: print("ran"))
class Loud:
    def __repr__(self): return print("ran")
P = inspect.Parameter
Stated.__signature__ = inspect.Signature([P("x", P.POSITIONAL_ONLY), P("y", P.KEYWORD_ONLY, default=Loud(), annotation=int)])
def passes(*args, **kwargs): ...
passes.__signature__ = inspect.Signature([P("a", P.POSITIONAL_OR_KEYWORD), P("b", P.POSITIONAL_OR_KEYWORD, default=2)], return_annotation=str)
def texted(*args): ...
texted.__signature__ = "(one, two)"
partial, stated, told, thing, names = functools.partial(passes, 1), Stated(), Told(), Thing(), Names()
free = thing.run
called = Stated()
called.__signature__ = inspect.Signature([P("z", P.POSITIONAL_OR_KEYWORD)])
noted = Thing()
noted.__doc__ = "A note on this one."
def local():
    class Hidden(Base):
        def run(self): ...
    return Hidden
Hidden = local()
@functools.wraps(thing.own)
def wrapper(*args): ...
wrapper.__doc__ = "Its own."
def three(a, b=2, *rest, c=3): ...
keyed, twice = functools.partial(three, 1, b='two'), functools.partial(functools.partial(three, 1, b='two', c='three'), b=2)
@dataclasses.dataclass
class Data: a: int
@dataclasses.dataclass
class WithMethod:
    def own(self): ...
"""
INSPECTIONS: list[tuple[str, str, str, str]] = [
    ("a method's docstring is its base's", "thing.run", "doc", "Runs it."),
    ("of the class", "Thing.run", "doc", "Runs it."),
    ("by another name", "free", "doc", "Runs it."),
    ("where it is called", "thing.run(", "doc", "Runs it."),
    ("of an instance that is not made", "Thing().run", "doc", "Runs it."),
    ("of a class in a function", "Hidden.run", "doc", "Runs it."),
    ("a class method's", "Thing.make", "doc", "Makes one."),
    ("a property's", "thing.area", "doc", "How large."),
    ("a cached property's", "thing.cost", "doc", "How dear."),
    ("a property's of the class", "Thing.area", "doc", "How large."),
    ("a class's", "Thing", "doc", "A base."),
    ("an instance's", "thing", "doc", "A base."),
    ("that of a method of a type of Python", "names.append", "doc", "Append object to the end of the list."),
    ("there is none", "thing.own", "doc", ""),
    ("of a wrapper", "wrapper", "doc", "Its own."),
    ("an instance's own", "noted", "doc", "A note on this one."),
    ("one that is computed", "told", "doc", ""),
    ("the signature of the override", "thing.run", "signature", "(fast=False, *, far=1)"),
    ("a stated signature of a function", "passes", "signature", "(a, b=2) -> str"),
    ("in a partial", "partial", "signature", "(b=2) -> str"),
    ("a partial's keyword", "keyed", "signature", "(*, b='two', c=3)"),
    ("a partial of a partial", "twice", "signature", "(*, b=2, c='three')"),
    ("a dataclass's source is its own", "Data", "source", ""),
    ("and with a method", "WithMethod", "source", "@dataclasses.dataclass\nclass WithMethod:\n    def own(self): ...\n"),
    ("as a text", "texted", "signature", "(one, two)"),
    ("of a class", "Stated", "signature", "(x, /, *, y: int = <Loud object>)"),
    ("which is not that of its instances", "stated", "signature", "(**kwargs)"),
    ("of an instance", "called", "signature", "(z)"),
    ("that is computed", "told", "signature", ""),
    ("the source of a property", "Base.area", "source", '    @property\n    def area(self):\n        "How large."\n        return print("ran")\n'),
    ("of an instance's", "thing.area", "source", '    @property\n    def area(self): return print("ran")\n'),
    ("of a cached property", "thing.cost", "source", '    @functools.cached_property\n    def cost(self): return print("ran")\n'),
]  # fmt: skip


async def test_objects_are_inspected_and_nothing_is_run(editor: pyrepl3.Session) -> None:
    assert (await run(editor, OBJECTS)).stdout == ""

    async def check(code: str, field: str, expected: str) -> None:
        assert getattr(await editor.inspect(code), field) == expected

    await check_rows(INSPECTIONS, check)
    assert {"a=", "b="} <= set((await editor.complete("passes(")).matches)
    assert (await run(editor, "print('quiet')")).stdout == "quiet\n"


async def test_a_class_of_more_lines_than_are_shown_is_inspected(editor: pyrepl3.Session) -> None:
    """Its source is cut in the middle of a text, as that of `pandas.DataFrame` is."""
    lines = "\n".join(f"    line {n}" for n in range(2000))
    await run(editor, f'class Long:\n    """Long.\n{lines}\n    """\n    def method(self): pass')
    found = await editor.inspect("Long")
    assert (found.found, found.type_name) == (True, "type")
    assert found.source.startswith("class Long:")
    assert (await editor.inspect("Long.method")).found


UFUNCS: list[tuple[str, str]] = [
    ("np.sin", "(x, /, out=None, *, where=True, "),
    ("np.add", "(x1, x2, /, out=None, *, where=True, "),
    ("np.modf", "(x, /, out=(None, None), *, where=True, "),
    ("np.matmul", "(x1, x2, /, out=None, *, axes="),
    ("own", "(x1, x2, x3, /, out=None, *, where=True, "),
]


async def test_ufuncs() -> None:
    pytest.importorskip("numpy", reason="ufuncs are NumPy's")
    async with pyrepl3.open_session(config=quick()) as session:
        await run(session, "import numpy as np\nown = np.frompyfunc(lambda a, b, c: 1, 3, 1)")

        async def check(code: str, expected: str) -> None:
            assert (await session.inspect(code)).signature.startswith(expected)

        await check_rows(((code, code, expected) for code, expected in UFUNCS), check)
        assert "Add arguments element-wise." in (await session.inspect("np.add")).doc
        assert "Sum of array elements" in (await session.inspect("np.sum")).doc
        assert {"dtype=", "where="} <= set((await session.complete("np.add(")).matches)


async def test_tables_and_arrays() -> None:
    pytest.importorskip("pandas", reason="tables are pandas's")
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        await run(
            session,
            "import numpy as np, pandas as pd\na = np.zeros((3, 4))\ndf = pd.DataFrame({'hello': [1], 'wor ld': [2]})\ns = df.hello",
        )
        shown = await session.variables()
        assert [(v.length, v.shape, v.dtype) for v in map(shown.__getitem__, ("a", "df", "s"))] == [
            (3, [3, 4], "float64"),
            (1, [1, 2], ""),
            (1, [1], "int64"),
        ]
        assert shown["a"].size == 96
        for code, expected in (
            ("df['", ["hello", "wor ld"]),
            ("df.he", ["head", "hello"]),
            ("df.hello.mea", ["mean"]),
            ("df['hello'].mea", ["mean"]),
        ):
            assert (await session.complete(code)).matches[: len(expected)] == expected
        # A column that is an attribute too is one match.
        assert (await session.complete("df.hel")).matches == ["hello"]
        await run(
            session, "wide = pd.DataFrame(np.zeros((2, 100_000)))\nmixed = df.assign(c=pd.Categorical(['x']))"
        )
        shown = await session.variables()
        assert shown["wide"].shape == [2, 100_000]
        sizes = "[int(f.memory_usage().sum()) for f in (pd.DataFrame(np.zeros((2, 10))), mixed, df)]"
        narrow, mixed, plain = await value(session, sizes)
        assert shown["wide"].size == narrow + 16 * 99_990
        assert (shown["mixed"].size, shown["df"].size) == (mixed, plain)


def test_the_tables_are_long_enough() -> None:
    assert sum(map(len, (PLACES, WRONG, COMPLETENESS))) >= 45
