"""What a session shows: rich forms of last values, displays, figures, and what libraries display.

Each row is a cell (or several) and what comes of it, on real workers. What needs a library skips without it.
"""

import asyncio
import base64
import importlib.util
import json
import os
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import Display
from tests.helpers.real_sessions import PATIENCE, quick, run, stop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

CLASSES: Final = """
class Html:
    def __init__(self, text="<b>r</b>"): self.text = text
    def _repr_html_(self): return self.text
    def __repr__(self): return "Html()"

class Everything(Html):
    def _repr_markdown_(self): return "**m**"
    def _repr_svg_(self): return "<svg/>"
    def _repr_png_(self): return b"\\x89PNG"
    def _repr_jpeg_(self): return b"\\xff\\xd8", {"width": 3}
    def _repr_webp_(self): return b"RIFF"
    def _repr_pdf_(self): return b"%PDF"
    def _repr_latex_(self): return "$x$"
    def _repr_json_(self): return {"a": [1, None]}
    def _repr_javascript_(self): return "alert(1)"

class Bundle:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": "own text", "image/png": b"\\0", "application/vnd.x+json": {"k": 1}}, {"image/png": {"width": 2}}
    def _repr_png_(self): raise AssertionError("asked twice")

class Itself:
    def _ipython_display_(self): display({"text/html": "itself"}, raw=True)

class Failing(Html):
    def _repr_html_(self): raise ValueError("no html")
    def _repr_latex_(self): return "$y$"

class Hidden(Html):
    _repr_html_ = None

class Property(Html):
    @property
    def _repr_html_(self): raise AttributeError("not today")

class Proxy:
    def __init__(self, of): self._of = of
    def __getattr__(self, name): return getattr(self._of, name)

class NoHash(type):
    def __hash__(cls): raise ValueError("no")
class Unhashed(Html, metaclass=NoHash): pass

class Shared:
    def __init__(self, of=None):
        self.of = of or []
        for _ in range(60): self.of = [self.of, self.of]
    def _repr_json_(self): return self.of
    def __repr__(self): return "Shared()"

class Own: pass
own = Own(); own._repr_html_ = lambda: "<i>own</i>"
"""


class Row(NamedTuple):
    """A cell and what its result holds."""

    name: str
    code: str
    data: dict[str, str] | None = None
    """What `data` is to hold, without `text/plain` where a row does not name it; None is nothing at all."""
    displays: tuple[dict[str, str], ...] = ()
    metadata: dict[str, Any] | None = None
    stdout: str = ""


ROWS: Final = (
    Row("html", "Html()", {"text/html": "<b>r</b>", "text/plain": "Html()"}),
    Row(
        "every method there is",
        "Everything()",
        {
            "text/html": "<b>r</b>", "text/markdown": "**m**", "image/svg+xml": "<svg/>", "image/png": "iVBORw==",
            "image/jpeg": "/9g=", "image/webp": "UklGRg==", "application/pdf": "JVBERg==", "text/latex": "$x$",
            "application/json": '{"a":[1,null]}', "application/javascript": "alert(1)", "text/plain": "Html()",
        },
        metadata={"image/jpeg": {"width": 3}},
    ),
    Row(
        "a whole bundle, with its own text",
        "Bundle()",
        {"text/plain": "own text", "image/png": "AA==", "application/vnd.x+json": '{"k":1}'},
        metadata={"image/png": {"width": 2}},
    ),
    Row("what shows itself is a display", "Itself()", None, ({"text/html": "itself"},)),
    Row(
        "a form that fails leaves the others, and is told of",
        "Failing()",
        {"text/latex": "$y$", "text/plain": "Html()"},
        metadata={"text/html": {"error": "ValueError: no html"}},
    ),
    Row("a form that a subclass takes back", "Hidden()"),
    Row("of a class whose metaclass forbids a hash", "Unhashed()", {"text/html": "<b>r</b>"}),
    Row(
        "JSON that holds one list twice, sixty times over",
        "Shared()",
        metadata={"application/json": {"error": "ValueError: its JSON would be longer than 268,435,456 characters"}},
    ),
    Row(
        "in a dataclass",
        "from dataclasses import dataclass\n@dataclass\nclass Kept:\n    text: str\nShared(Kept('x' * 100))",
        metadata={"application/json": {"error": "ValueError: its JSON would be longer than 268,435,456 characters"}},
    ),
    Row("a form that a property refuses", "Property()"),
    Row("a stand-in for an object with a form", "Proxy(Html())", {"text/html": "<b>r</b>"}),
    Row("a stand-in for one without", "Proxy(3)"),
    Row("a method of the instance", "own", {"text/html": "<i>own</i>"}),
    Row("a class is not its instances", "Html"),
    Row("None is no form", "Html(None)"),
    Row("an int", "1"),
    Row("a str", "'text'"),
    Row("a list of rich objects", "[Html()]"),
    Row("a function", "len"),
    Row("None", "None"),
    Row("an assignment", "kept = Html()"),
    Row("a semicolon", "Html();"),
    Row("an object that answers to every name", "import unittest.mock\nunittest.mock.MagicMock()"),
    Row("the value of a top-level await", "import asyncio\nawait asyncio.sleep(0, Html())", {"text/html": "<b>r</b>"}),
    Row("a return at the top level", "if True:\n    return Html()", {"text/html": "<b>r</b>"}),
    Row("a code of a thread's cell", "import time\ntime.sleep(0)\nHtml()", {"text/html": "<b>r</b>"}),
    Row("bytes in a text form are base64", "Html(b'\\0')", {"text/html": "AA=="}),
    Row("surrogates are escaped", "Html('\\ud800')", {"text/html": "\\ud800"}),
    # --- display() ---
    Row("display of several", "display(1, Html())", None, ({"text/plain": "1"}, {"text/html": "<b>r</b>"})),
    Row("display of nothing", "display()"),
    Row("display in a loop", "for i in range(3): display(i)", None, tuple({"text/plain": f"{i}"} for i in range(3))),
    Row("display in a function of a module", "exec('display(2)', {})", None, ({"text/plain": "2"},)),
    Row("display in a comprehension", "[display(i) for i in 'ab'] and None", None, ({"text/plain": "'a'"}, {"text/plain": "'b'"})),
    Row("raw", "display({'text/html': 'x', 'a/b+json': [1]}, raw=True)", None, ({"text/html": "x", "a/b+json": "[1]"},)),
    Row("metadata", "display(Html(), metadata={'text/html': {'isolated': True}})", None, ({"text/html": "<b>r</b>"},)),
    Row("include", "display(Everything(), include=['text/latex'])", None, ({"text/latex": "$x$"},)),
    Row("exclude", "display(Html(), exclude=['text/html'])", None, ({"text/plain": "Html()"},)),
    Row("what shows itself shows itself once", "display(Itself())", None, ({"text/html": "itself"},)),
    Row("display in a task", "import asyncio\nasync def f(): display(5)\nawait asyncio.create_task(f())", None, ({"text/plain": "5"},)),
    Row("display in a thread", "import threading\nt = threading.Thread(target=display, args=(6,)); t.start(); t.join()", None, ({"text/plain": "6"},)),
    Row("display of a name of one's own", "def show(display): display('x')\nshow(print)", stdout="x\n"),
    # --- handles, clearing ---
    Row("a handle updates", "h = display(1, display_id='a'); h.update(2)", None, ({"text/plain": "1"}, {"text/plain": "2"})),
    Row("a handle displays again", "h = display(1, display_id=True); h.display(3)", None, ({"text/plain": "1"}, {"text/plain": "3"})),
    Row("a place to be filled", "h = display(display_id='b'); h.update(Html())", None, ({}, {"text/html": "<b>r</b>"})),
    Row("clear_output", "display(1); clear_output(); display(2)", None, ({"text/plain": "2"},)),
    Row("clear_output, nothing after it", "display(1); clear_output()"),
    Row("clear_output waits for a display", "display(1); clear_output(wait=True); display(2)", None, ({"text/plain": "2"},)),
    Row("clear_output waits for ever", "display(1); clear_output(wait=True)", None, ({"text/plain": "1"},)),
    Row("clear_output waits for output", "display(1); clear_output(True); print(3)", stdout="3\n"),
    Row("clear_output leaves text", "print('kept'); clear_output()", stdout="kept\n"),
    Row("display(clear=True)", "display(1); display(2, clear=True)", None, ({"text/plain": "2"},)),
)  # fmt: skip


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute(CLASSES)
        yield session


def matches(given: dict[str, str], wanted: dict[str, str]) -> bool:
    """Return whether a bundle is the wanted one, apart from a text that is not named."""
    return {mime: text for mime, text in given.items() if mime in wanted or mime != "text/plain"} == wanted


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_a_cell_shows(session: pyrepl3.Session, row: Row) -> None:
    result = await session.execute(row.code)
    if row.data is None:
        assert result.data == {}
    else:
        assert matches(result.data, row.data)
        assert "text/plain" in result.data
    shown = [display.data for display in result.displays]
    assert len(shown) == len(row.displays)
    assert all(map(matches, shown, row.displays)), shown
    assert result.stdout == row.stdout
    assert {mime: json.loads(text) for mime, text in result.metadata.items()} == (row.metadata or {})
    assert (result.stderr, result.truncated) == ("", False)


# --- who sees displays, and when ----------------------------------------------------------------------------


def plain(displays: Iterable[Display]) -> list[str]:
    return [display.data.get("text/plain", "") for display in displays]


async def test_displays_come_as_they_are_made_and_in_order_with_output(session: pyrepl3.Session) -> None:
    seen: list[str] = []
    await session.execute(
        "print('a'); display(1); print('b'); display(2); print('c')",
        on_output=lambda output: seen.append(output.data.strip()),
        on_display=lambda display: seen.append(display.data["text/plain"]),
    )
    assert seen == ["a", "1", "b", "2", "c"]


async def test_an_asynchronous_handler_is_awaited_before_it_gets_the_next(session: pyrepl3.Session) -> None:
    seen: list[str] = []

    async def slowly(display: Display) -> None:
        seen.append(f"begin {display.data['text/plain']}")
        await asyncio.sleep(0)
        seen.append("end")

    result = await session.execute("display(1); display(2)", on_display=slowly)
    assert seen == ["begin 1", "end", "begin 2", "end"]
    assert plain(result.displays) == ["1", "2"]


async def test_what_a_handler_raises_is_the_executions_error(session: pyrepl3.Session) -> None:
    def fails(display: Display) -> None:
        raise LookupError("no screen")

    with pytest.raises(LookupError, match="no screen") as failure:
        await session.execute("display(1); 7", on_display=fails)
    assert "raised by on_display while execution" in failure.value.__notes__[0]


async def test_a_clearing_and_an_update_are_events_of_their_own(session: pyrepl3.Session) -> None:
    seen: list[Display] = []
    code = "h = display(1, display_id='x'); h.update(2); clear_output(wait=True); display(3); clear_output()"
    result = await session.execute(code, on_display=seen.append)
    told = [(one.data.get("text/plain"), one.display_id, one.update, one.clear) for one in seen]
    assert told == [
        ("1", "x", False, ""),
        ("2", "x", True, ""),
        (None, None, False, "wait"),
        ("3", None, False, ""),
        (None, None, False, "now"),
    ]
    assert not result.displays
    assert [one.execution_id for one in seen] == [result.execution_id] * 5


async def test_a_handle_of_an_earlier_cell_updates_its_display(session: pyrepl3.Session) -> None:
    first = await session.execute("early = display('v0', display_id=True)")
    second = await session.execute("early.update('v1')")
    assert first.displays[0].display_id == second.displays[0].display_id
    assert (second.displays[0].update, plain(second.displays)) == (True, ["'v1'"])


@pytest.mark.parametrize(
    "code",
    [
        """
import asyncio
async def later():
    await go.wait(); display('late')
go = asyncio.Event(); task = asyncio.create_task(later())
""",
        """
import threading
go = threading.Event()
def later():
    go.wait(); display('late')
thread = threading.Thread(target=later); thread.start()
""",
    ],
    ids=["task", "thread"],
)
async def test_a_late_display_goes_to_the_sessions_handler_under_its_own_cell(code: str) -> None:
    seen: list[Display] = []
    own: list[Display] = []
    there = asyncio.Event()

    def see(display: Display) -> None:
        seen.append(display)
        there.set()

    async with pyrepl3.open_session(config=quick(), on_display=see) as session:
        first = await session.execute(code, execution_id="first", on_display=own.append)
        second = await session.execute("go.set(); import time; time.sleep(0)", on_display=own.append)
        async with asyncio.timeout(PATIENCE):
            await there.wait()
        assert (first.displays, second.displays, own) == ((), (), [])
        assert [(one.execution_id, one.late, plain([one])) for one in seen] == [("first", True, ["'late'"])]
        assert session.worker.incarnation == 1


async def test_a_form_that_hangs_can_be_cancelled(session: pyrepl3.Session) -> None:
    hangs = "class Hangs:\n    def _repr_html_(self):\n        print('in'); \n        while True: pass\n"
    for last in ("Hangs()", "display(Hangs())"):
        inside = asyncio.Event()
        execution = session.start(hangs + last, check=False, on_output=lambda _, inside=inside: inside.set())
        async with asyncio.timeout(PATIENCE):
            await inside.wait()
        result = await stop(execution)
        assert result.error is not None
        assert result.error.kind == "cancelled"
    assert session.worker.incarnation == 1


async def test_the_users_own_display_wins_and_ours_comes_back(session: pyrepl3.Session) -> None:
    result = await session.execute(
        "def display(x): return 'mine'\nclear_output = 5\ndisplay(1), clear_output"
    )
    assert result.value == ["mine", 5]
    result = await session.execute("del display, clear_output\ndisplay(1); clear_output()")
    assert not result.displays


async def test_a_forked_child_writes_what_it_displays(session: pyrepl3.Session) -> None:
    code = (
        "import os\npid = os.fork()\nif pid == 0:\n    display('child'); os._exit(0)\nos.waitpid(pid, 0)[1]"
    )
    result = await session.execute(code)
    assert (result.value, result.stdout, result.displays) == (0, "'child'\n", ())


# --- bounds -------------------------------------------------------------------------------------------------


async def test_rich_data_has_a_bound_of_its_own_and_leaves_placeholders() -> None:
    config = quick(max_output_bytes=1000, max_display_bytes=10_000)
    big = (
        "class Big:\n    def _repr_html_(self): return 'x' * 50_000\n    def __repr__(self): return 'Big()'\n"
    )
    placeholder = "Big()\n… text/html of 50,000 bytes cut (max_display_bytes=10000) …"
    async with pyrepl3.open_session(config=config) as session:
        result = await session.execute("print('x' * 20_000); display({'text/html': 'small'}, raw=True)")
        assert [one.data for one in result.displays] == [{"text/html": "small"}]
        result = await session.execute(big + "display(Big(), display_id='d'); display(5)")
        assert plain(result.displays) == [placeholder, "5"]
        assert result.displays[0].display_id == "d"
        assert result.truncated
        result = await session.execute("Big()")
        assert (result.data, result.repr, result.truncated) == ({"text/plain": placeholder}, "Big()", True)
        result = await session.execute("for i in range(1000): display({'text/html': 'y' * 900}, raw=True)")
        assert len(result.displays) == 11 + 100
        assert "all further displays cut" in result.displays[-1].data["text/plain"]
        assert (await session.execute("display(1)")).truncated is False


async def test_an_update_counts_in_place_of_what_it_replaces_and_what_is_cleared_not_at_all() -> None:
    async with pyrepl3.open_session(config=quick(max_display_bytes=10_000)) as session:
        code = "h = display(display_id='p')\nfor i in range(50): h.update({'text/html': f'{i:03}' * 2000}, raw=True)"
        result = await session.execute(code)
        assert result.displays[-1].data == {"text/html": "049" * 2000}
        assert not result.truncated
        code = (
            "for i in range(50): clear_output(wait=True); display({'text/html': f'{i:03}' * 2000}, raw=True)"
        )
        result = await session.execute(code)
        assert [one.data for one in result.displays] == [{"text/html": "049" * 2000}]
        assert not result.truncated


async def test_a_display_that_does_not_fit_a_frame_is_named_too() -> None:
    async with pyrepl3.open_session(config=quick(max_frame_bytes=8192)) as session:
        result = await session.execute("display({'image/png': b'x' * 10_000}, raw=True); print('goes on')")
        (shown,) = plain(result.displays)
        assert shown == "… image/png of 13,336 bytes cut (max_frame_bytes) …"
        assert result.stdout == "goes on\n"
        result = await session.execute("class B:\n    def _repr_html_(self): return 'x' * 9000\nB()")
        assert "text/html of 9,000 bytes cut (max_frame_bytes)" in result.data["text/plain"]


async def test_a_report_of_nothing_makes_nothing() -> None:
    config = pyrepl3.WorkerConfig(report=())
    async with pyrepl3.open_session(config=config) as session:
        result = await session.execute(
            CLASSES + "class Told(Html):\n    def _repr_html_(self): print('made')\nTold()"
        )
        assert (result.data, result.stdout, result.repr) == ({}, "", "Html()")
        assert (await session.execute("display(Html())")).displays[0].data["text/html"] == "<b>r</b>"


# --- on record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_was_shown_is_on_record_and_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    store = None if kind == "memory" else tmp_path / "s.db"
    code = (
        CLASSES
        + "display({'image/png': b'x' * 1_000_000}, raw=True, display_id=True); display(2); Everything()"
    )
    seen: list[Display] = []

    async def ask(session: pyrepl3.Session) -> pyrepl3.ExecutionResult:
        return await session.execute(code, execution_id="one", on_display=seen.append)

    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        first = await session.execute(code, execution_id="one")
        again = await ask(session)
    if store is not None:
        async with pyrepl3.open_session("s", store=store, config=quick()) as session:
            again = await ask(session)
    assert again.replayed
    assert (again.displays, again.data, again.metadata) == (first.displays, first.data, first.metadata)
    assert len(again.displays[0].data["image/png"]) > 1_000_000
    assert (again.truncated, seen) == (False, [])


@pytest.mark.parametrize("policy", ["replay", "checkpoint"])
async def test_a_handle_survives_its_worker(policy: pyrepl3.RecoveryPolicy) -> None:
    async with pyrepl3.open_session(config=quick(), recovery=policy) as session:
        first = await session.execute("h = display('v0', display_id=True)")
        assert not (await session.checkpoint()).unsaved
        os.kill(session.worker.pid, signal.SIGKILL)
        again = await session.execute("h.update('v1')")
        assert session.worker.incarnation == 2
        assert again.displays[0].display_id == first.displays[0].display_id


async def test_what_was_seen_before_a_death_is_not_seen_again() -> None:
    seen: list[Display] = []
    code = "h = display('one', display_id=True)\nimport os, signal, pathlib\ninput(); display('two')"
    async with pyrepl3.open_session(config=quick(), on_display=seen.append) as session:

        def die_once(prompt: str) -> str:
            if session.worker.incarnation == 1:
                os.kill(session.worker.pid, signal.SIGKILL)
            return ""

        result = await session.execute(code, on_input=die_once)
        assert result.attempts == 2
        assert plain(seen) == ["'one'", "'two'"]
        assert plain(result.displays) == ["'one'", "'two'"]


# --- libraries ----------------------------------------------------------------------------------------------


class LibraryRow(NamedTuple):
    """A cell with a library, and the MIME types that come of it."""

    name: str
    needs: str
    """Names of modules, with spaces between."""
    code: str
    data: str = ""
    """MIME types of `data`, in alphabetical order, with spaces between."""
    displays: tuple[str, ...] = ()
    """MIME types of each display."""
    stdout: str = ""
    stderr: str = ""
    """A part of what is written there."""


PNG: Final = "image/png text/plain"
HTML: Final = "text/html text/plain"
PLOT: Final = "import matplotlib.pyplot as plt\n"
PLOTLY: Final = "import plotly.graph_objects as go\nf = go.Figure(go.Scatter(y=[1, 2]))\n"
IP: Final = "from IPython.display import *\nfrom IPython.display import display, clear_output, update_display, publish_display_data\n"
LIBRARIES: Final = (
    LibraryRow("figures shown in a loop", "matplotlib", PLOT + "for i in range(3):\n    plt.plot([i]); plt.show(); print(len(plt.gca().lines))\nplt.close()", "", (PNG,) * 3, "0\n0\n0\n"),
    LibraryRow("figures shown together", "matplotlib", PLOT + "for i in range(2): plt.subplots()\nplt.show(); print('end')", "", (PNG,) * 2, "end\n"),
    LibraryRow("open figures at a cell's end", "matplotlib", PLOT + "fig, ax = plt.subplots(); ax.plot([1]); None", "", (PNG,)),
    LibraryRow("a figure of an earlier cell as a value", "matplotlib", "ax.set_title('new'); fig", PNG),
    LibraryRow("figures of a cell that fails", "matplotlib", PLOT + "plt.plot([1])\ntry:\n    1/0\nexcept ZeroDivisionError: pass", "", (PNG,)),
    LibraryRow("Figure.show", "matplotlib", PLOT + "fig, ax = plt.subplots(); ax.plot([1]); fig.show(); print(plt.get_fignums())", "", (PNG,), "[]\n"),
    LibraryRow("a figure without anything in it", "matplotlib", PLOT + "plt.figure(); None", "", ("text/plain",)),
    LibraryRow("a figure in a thread", "matplotlib", PLOT + "import threading\ndef draw(): plt.plot([1]); plt.show()\nt = threading.Thread(target=draw); t.start(); t.join()", "", (PNG,)),
    LibraryRow("figures in tasks", "matplotlib", PLOT + "import asyncio\nasync def draw(): plt.plot([1]); plt.show()\nfor t in [asyncio.create_task(draw()) for _ in range(2)]: await t", "", (PNG,) * 2),
    LibraryRow("another backend without windows", "matplotlib", "import matplotlib; matplotlib.use('svg')\n" + PLOT + "plt.plot([1]); plt.show(); matplotlib.use('agg')", "", (PNG,)),
    LibraryRow("a figure that cannot be drawn", "matplotlib", PLOT + "plt.title('$\\\\nonsense{$'); plt.show()", "", ("text/plain",)),
    LibraryRow("a DataFrame", "pandas", "import pandas as pd\npd.DataFrame({'a': [1]})", HTML),
    LibraryRow("a DataFrame displayed", "pandas", "import pandas as pd\ndisplay(pd.DataFrame({'a': [1]}))", "", (HTML,)),
    LibraryRow("a Styler", "pandas jinja2", "import pandas as pd\npd.DataFrame({'a': [1]}).style", HTML),
    LibraryRow("a Series is text", "pandas", "import pandas as pd\npd.Series([1])"),
    LibraryRow("polars", "polars", "import polars as pl\npl.DataFrame({'a': [1]})", HTML),
    LibraryRow("sympy", "sympy", "import sympy\nsympy.Symbol('x') ** 2", "text/latex text/plain"),
    LibraryRow("PIL", "PIL", "import PIL.Image\nPIL.Image.new('RGB', (2, 2))", "image/jpeg image/png text/plain"),
    LibraryRow("plotly as a value", "plotly", PLOTLY + "f", "", ("application/vnd.plotly.v1+json text/html",)),
    LibraryRow("plotly shown", "plotly", PLOTLY + "f.show()", "", ("application/vnd.plotly.v1+json text/html",)),
    LibraryRow("altair", "altair", "import altair as alt\nalt.Chart({'values': []}).mark_bar()", HTML),
    LibraryRow("rich as a value", "rich", "import rich.table\nrich.table.Table('a')", HTML),
    LibraryRow("rich printed", "rich", "import rich\nrich.print('[bold]x[/bold]')", stdout="x\n"),
    LibraryRow("tqdm", "tqdm", "from tqdm.auto import tqdm\nfor _ in tqdm(range(2)): pass", stderr="2/2"),
    LibraryRow("tqdm.notebook", "tqdm", "import sys, tqdm.notebook\nif 'ipywidgets' in sys.modules: print('2/2', file=sys.stderr)\nelse:\n    for _ in tqdm.notebook.tqdm(range(2)): pass", stderr="2/2"),
    LibraryRow("IPython's display", "IPython", IP + "display(HTML('<b>x</b>'))", "", (HTML,)),
    LibraryRow("IPython's display under another name", "IPython", "from IPython.core.display_functions import display as d\nd(1, 2)", "", ("text/plain",) * 2),
    LibraryRow("IPython's handle", "IPython", "h = display(HTML('1'), display_id=True)\nh.update(HTML('2')); update_display(HTML('3'), display_id=h.display_id)\nassert isinstance(h, DisplayHandle)", "", (HTML,) * 3),
    LibraryRow("IPython's clear_output", "IPython", "display(1); clear_output(wait=True); display(HTML('2'))", "", (HTML,)),
    LibraryRow("IPython's raw data", "IPython", "publish_display_data({'text/html': 'x'}); display({'text/html': 'y'}, raw=True)", "", ("text/html",) * 2),
    LibraryRow("IPython's display_html and its like", "IPython", "display_html(HTML('x')); display_markdown('**m**', raw=True)", "", ("text/html", "text/markdown")),
    LibraryRow("IPython's Image", "IPython", "Image(data=b'\\x89PNG\\r\\n\\x1a\\n', width=3)", PNG),
    LibraryRow("IPython's Latex", "IPython", "Latex('$x$')", "text/latex text/plain"),
    LibraryRow("IPython's Markdown", "IPython", "Markdown('**x**')", "text/markdown text/plain"),
    LibraryRow("IPython's SVG", "IPython", "SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')", "image/svg+xml text/plain"),
    LibraryRow("IPython's Javascript", "IPython", "Javascript('1')", "application/javascript text/plain"),
    LibraryRow("IPython's JSON", "IPython", "JSON({'a': 1})", "application/json text/plain"),
    LibraryRow("IPython's GeoJSON shows itself", "IPython", "GeoJSON({'type': 'Point'})", "", ("application/geo+json text/plain",)),
    LibraryRow("what has a form for IPython's text", "IPython", "Pretty('own text')", "text/plain"),
    LibraryRow("IPython makes no shell", "IPython", "from IPython.core.interactiveshell import InteractiveShell\nprint(InteractiveShell.initialized())", stdout="False\n"),
)  # fmt: skip


@pytest.mark.parametrize("row", LIBRARIES, ids=lambda row: row.name)
async def test_what_a_library_shows(session: pyrepl3.Session, row: LibraryRow) -> None:
    for module in row.needs.split():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed here")
    with anyio.fail_after(6 * PATIENCE):
        result = await session.execute(row.code, check=False)
    assert result.error is None, result.error
    assert " ".join(sorted(result.data)) == row.data
    assert tuple(" ".join(sorted(display.data)) for display in result.displays) == row.displays
    assert result.stdout == row.stdout
    assert row.stderr in result.stderr
    assert {*result.metadata.values()} <= {'{"expanded":false,"root":"root"}', '{"width":3}'}


async def test_pictures_show_what_was_drawn_and_not_what_was_drawn_before(session: pyrepl3.Session) -> None:
    pytest.importorskip("matplotlib")
    one = await session.execute(PLOT + "plt.plot([0, 1]); plt.show(); plt.plot([1, 0]); plt.show()")
    same = await session.execute(PLOT + "plt.plot([1, 0]); plt.show()")
    assert one.displays[0].data["image/png"] != one.displays[1].data["image/png"]
    assert one.displays[1].data == same.displays[0].data
    assert base64.b64decode(same.displays[0].data["image/png"]).startswith(b"\x89PNG")


async def test_a_figure_that_takes_for_ever_can_be_cancelled(session: pyrepl3.Session) -> None:
    pytest.importorskip("matplotlib")
    code = PLOT + (
        "class Slow(plt.Line2D):\n    def draw(self, renderer):\n        print('drawing'); \n        while True: pass\n"
        "plt.gca().add_line(Slow([0, 1], [0, 1])); None"
    )
    inside = asyncio.Event()
    execution = session.start(code, check=False, on_output=lambda _: inside.set())
    with anyio.fail_after(PATIENCE):
        await inside.wait()
    result = await stop(execution)
    assert result.error is not None
    assert (result.error.kind, session.worker.incarnation) == ("cancelled", 1)
    assert not (await run(session, "1")).displays


IPYTHON_ROWS: Final = (
    ("a value", "import pandas as pd\npd.DataFrame({'a': [1]})", HTML, ()),
    ("display", "display(pd.DataFrame({'a': [1]}))", "", (HTML,)),
    ("a form that the code registers", "class P: pass\nget_ipython().display_formatter.formatters['text/html'].for_type(P, lambda p: 'p')\nP()", HTML, ()),
    ("plt.show", PLOT + "plt.plot([1]); plt.show(); plt.plot([1]); plt.show()", "", (PNG,) * 2),
    ("a figure displayed", "fig, ax = plt.subplots(); ax.plot([1]); plt.close(); display(fig); fig", PNG, (PNG,)),
    ("%matplotlib inline", "%matplotlib inline\nplt.plot([1]); None", "", (PNG,)),
    ("plt.show, inline", "for i in range(2): plt.plot([i]); plt.show()", "", (PNG,) * 2),
    ("clear_output", "from IPython.display import clear_output\ndisplay(1); clear_output(); display(2)", "", ("text/plain",)),
    ("captured", "%%capture cap\ndisplay(pd.DataFrame({'a': [1]}))", "", ()),
    ("shown after all", "cap.show()", "", (HTML,)),
)  # fmt: skip


async def test_ipythons_syntax_shows_the_same() -> None:
    for module in ("IPython", "matplotlib", "pandas"):
        pytest.importorskip(module)
    async with pyrepl3.open_session(config=quick(syntax="ipython")) as session:
        for name, code, data, displays in IPYTHON_ROWS:
            result = await run(session, code)
            assert result.error is None, name
            assert " ".join(sorted(result.data)) == data, name
            assert tuple(" ".join(sorted(one.data)) for one in result.displays) == displays, name


async def test_without_ipython_nothing_of_it_is_imported(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        code = (
            CLASSES
            + "display(Html()); clear_output()\nimport sys\n[name for name in sys.modules if 'IPython' in name]"
        )
        assert (await session.execute(code)).value == []
