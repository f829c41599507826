"""Errors, warnings and hooks, as tables: what code does, and what its user sees. On one real worker.

Below the tables stands what takes a session of its own.
"""

import textwrap
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple

import anyio
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, run, type_of, value
from tests.helpers.tables import check_rows

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[pyrepl3.Session]:
    def fails() -> None:
        raise ValueError("from the host")

    async with pyrepl3.open_session(
        config=quick(), capabilities={"fails": fails}, on_input=lambda prompt: None
    ) as session:
        yield session


# --- code that does not compile ---------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an error points: its line from 1, its column from 0, and the line itself."""

    lineno: int
    colno: int
    line: str


SYNTAX_ERRORS: list[tuple[str, str, Place]] = [
    ("x = = 1", "invalid syntax", Place(1, 4, "x = = 1")),
    ("x = 1\nbreak", "'break' outside loop", Place(2, 0, "break")),
    ("for i in []: pass\ncontinue", "'continue' not properly in loop", Place(2, 0, "continue")),
    ("def f(a, a): pass", "duplicate argument 'a' in function definition", Place(1, 9, "def f(a, a): pass")),
    ("lambda é, é: 1", "duplicate argument 'é' in function definition", Place(1, 10, "lambda é, é: 1")),
    ("def h():\n    await z()", "'await' outside async function", Place(2, 4, "    await z()")),
    ("def h():\n    async with z: pass", "'async with' outside async function", Place(2, 4, "    async with z: pass")),
    ("class A:\n    return 1", "'return' outside function", Place(2, 4, "    return 1")),
    ("'é'; yield 1", "'yield' outside function", Place(1, 5, "'é'; yield 1")),
    ("class A:\n    yield 1", "'yield' outside function", Place(2, 4, "    yield 1")),
    ("x = 1\nnonlocal n", "nonlocal declaration not allowed at module level", Place(2, 0, "nonlocal n")),
    ("def f():\n    nonlocal n", "no binding for nonlocal 'n' found", Place(2, 4, "    nonlocal n")),
    ("def f():\n    x = 1\n    global x", "name 'x' is assigned to before global declaration", Place(3, 4, "    global x")),
    ("def f(x):\n    global x", "name 'x' is parameter and global", Place(2, 4, "    global x")),
    ("x = 1\nfrom __future__ import annotations", "from __future__ imports must occur at the beginning of the file", Place(2, 0, "from __future__ import annotations")),
    ("from __future__ import nothing", "future feature nothing is not defined", Place(1, 0, "from __future__ import nothing")),
    ("__debug__ = 1", "cannot assign to __debug__", Place(1, 0, "__debug__ = 1")),
    ("*a, *b = 1", "multiple starred expressions in assignment", Place(1, 0, "*a, *b = 1")),
    ("def g[T, T](): pass", "duplicate type parameter 'T'", Place(1, 9, "def g[T, T](): pass")),
    ("match 1:\n    case x: pass\n    case 2: pass", "name capture 'x' makes remaining patterns unreachable", Place(2, 9, "    case x: pass")),
    ("try: pass\nexcept: pass\nexcept E: pass", "default 'except:' must be last", Place(2, 0, "except: pass")),
    ("[x := 1 for x in y]", "assignment expression cannot rebind comprehension iteration variable 'x'", Place(1, 1, "[x := 1 for x in y]")),
    ("print('a'\nx = 1", "'(' was never closed", Place(1, 5, "print('a'")),
    ("x = 'open", "unterminated string literal (detected at line 1)", Place(1, 4, "x = 'open")),
    ("if x:\n    y\n  z", "unindent does not match any outer indentation level", Place(3, 4, "  z")),
    ("é = 1\nx = 5 5", "invalid syntax. Perhaps you forgot a comma?", Place(2, 4, "x = 5 5")),
]  # fmt: skip


async def test_every_syntax_error_shows_its_place(host: pyrepl3.Session) -> None:
    async def check(code: str, message: str, place: Place) -> None:
        error = (await run(host, code)).error
        assert error is not None
        assert (error.kind, error.frames[0].line) == ("compilation", place.line)
        if message.startswith("invalid syntax. Perhaps"):
            assert error.message.startswith("invalid syntax")  # 3.12 and 3.13 differ in what they guess
        elif "unindent" not in message:  # the tokenizer's own columns differ between versions
            assert (error.message, error.frames[0].lineno, error.frames[0].colno) == (
                message,
                place.lineno,
                place.colno,
            )
        shown = error.traceback.splitlines()
        assert shown[0].endswith(f", line {place.lineno}")
        assert shown[1].strip() == place.line.strip()
        assert "^" in shown[2]

    await check_rows(((row[1], *row) for row in SYNTAX_ERRORS), check)


CLASS = '    def f(self):\n        text = """\n        one\n    two"""\n        return text\n    x = 1'

SUGGESTIONS: list[tuple[str, str, str | None]] = [
    ("a block as a whole", "    def area(r):\n        return r\n    print(area(2))", "def area(r):\n    return r\nprint(area(2))"),
    ("a block with strings, which stay as they are", CLASS, 'def f(self):\n    text = """\n        one\n    two"""\n    return text\nx = 1'),
    ("a block with a comment", "  # why\n  x = 1\n\n  y = 2", "# why\nx = 1\n\ny = 2"),
    ("a block indented by tabs", "\tif x:\n\t\ty = 1", "if x:\n\ty = 1"),
    ("a block that returns", "    x = 1\n    return x", "x = 1\nreturn x"),
    ("a block with another mistake", "    x = 1\n    if x\n        y = 2", "x = 1\nif x:\n    y = 2"),
    ("one space too many", " x = 1\ny = 2", "x = 1\ny = 2"),
    ("lines that are indented too far", "x = 1\n  y = 2\n  z = 3", "x = 1\ny = 2\nz = 3"),
    ("in a function", "def f(x):\n    x = 1\n      y = 2\n    return x", "def f(x):\n    x = 1\n    y = 2\n    return x"),
    ("only one block can hold it", "def f():\n        x = 1\n    return x", "def f():\n        x = 1\n        return x"),
    ("two blocks could hold it", "if a:\n        b = 1\n    c = 2", None),
    ("two blocks could hold it, in a loop", "for i in y:\n    a(i)\n      b()\nc()", None),
    ("a block of one statement", "def f():\nreturn 1", "def f():\n    return 1"),
    ("a block of one or two statements", "if x:\na = 1\nb = 2", None),
    ("a block that only its two statements make", "def f():\nx = 1\nreturn x", "def f():\n    x = 1\n    return x"),
    ("a block before its else", "if x:\na = 1\nb = 2\nelse:\nc = 3", "if x:\n    a = 1\n    b = 2\nelse:\n    c = 3"),
    ("tabs and spaces that mean one thing", "if a:\n\tb = 1\n        c = 2", "if a:\n        b = 1\n        c = 2"),
    ("a missing colon", "if True\n    x = 1", "if True:\n    x = 1"),
    ("a missing colon before a comment", "with a as b  # why\n    x = 1", "with a as b:  # why\n    x = 1"),
    ("a missing colon beside a hash in a string", "if x == '#'\n    y = 1", "if x == '#':\n    y = 1"),
    ("a missing colon after two lines", "def f(a,\n      b)\n    return a", "def f(a,\n      b):\n    return a"),
    ("missing colons of match", "match x\n    case 1\n        y = 1", "match x:\n    case 1:\n        y = 1"),
    ("a colon that would make an annotation", "if a b: c", None),
    ("print", "print 'a', 3", "print('a', 3)"),
    ("print without a new line", "print 'a',", "print('a', end=\" \")"),
    ("print before another statement", "print 'a'; x = 1", "print('a'); x = 1"),
    ("print with a comment", "print 'a'  # why", "print('a')  # why"),
    ("print over two lines", "print 'a %s' % (\n    x)", "print('a %s' % (\n    x))"),
    ("nothing to suggest", "x = = 1", None),
    ("nothing to suggest for exec", "exec 'x' in y", None),
]  # fmt: skip


async def test_a_suggestion_is_the_program_that_was_meant(host: pyrepl3.Session) -> None:
    async def check(code: str, suggestion: str | None) -> None:
        error = (await run(host, code)).error
        assert error is not None
        assert (error.kind, error.suggestion) == ("compilation", suggestion)

    await check_rows(SUGGESTIONS, check)


async def test_auto_fix_runs_what_was_meant() -> None:
    pasted = "    def area(r):\n        return 3 * r * r\n    print('total', area(2))"
    async with pyrepl3.open_session(config=quick(auto_fix=True)) as session:
        result = await run(session, pasted)
        assert (result.error, result.stdout) == (None, "total 12\n")
        assert await value(session, "In[-2]") == textwrap.dedent(pasted)


# --- pasted prompts, IPython's lines -----------------------------------------------------------------------

PROMPTS: list[tuple[str, str, object]] = [
    ("python's", ">>> x = 1\n>>> x + 1", 2),
    ("of a block", ">>> def f():\n...     return 3\n...\n>>> f()", 3),
    ("with indentation", "    >>> x = 4\n    >>> x", 4),
    ("after an empty line", "\n>>> 5", 5),
    ("of a string over two lines", ">>> s = '''a\n... b'''\n>>> s", "a\nb"),
    ("ipython's", "In [3]: y = 2\n\nIn [4]: y * 3", 6),
    ("ipython's, of a block", "In [1]: def g():\n   ...:     return 7\n   ...: \n\nIn [2]: g()", 7),
    ("ipython's, with two digits", "In [10]: for i in range(2):\n    ...:     z = i\nIn [11]: z", 1),
    ("in a string they are text", "text = '''\n>>> x\n'''\ntext", "\n>>> x\n"),
    ("In is a name all the same", "In [0]", ""),
    ("a shift is a shift", "x = 16\nx >>2", 4),
    ("awaited", ">>> import asyncio\n>>> await asyncio.sleep(0, 8)", 8),
    ("other lines are code", ">>> a = 1\na + 8", 9),
]  # fmt: skip


async def test_code_runs_without_the_prompts_it_was_pasted_with(host: pyrepl3.Session) -> None:
    async def check(code: str, expected: object) -> None:
        assert await value(host, code) == expected

    await check_rows(PROMPTS, check)


async def test_what_pasted_code_printed_is_code_and_the_error_says_so(host: pyrepl3.Session) -> None:
    error = (await run(host, ">>> 1 / 2\nhalf of it")).error
    assert error is not None
    assert error.kind == "compilation"
    assert (
        "lines without a prompt are run as code; leave out what the pasted code has printed"
        in error.traceback
    )


IPYTHON_LINES: list[tuple[str, str, str]] = [
    ("%timeit x", "%timeit x", "a line magic"),
    ("%%time\nx = 1", "%%time", "a cell magic"),
    ("%%bash\nls | wc", "%%bash", "a cell magic"),
    ("x = 1\n%matplotlib inline", "%matplotlib inline", "a line magic"),
    ("for i in range(3):\n    %time i", "%time i", "a line magic"),
    ("!ls -la", "!ls -la", "a shell command"),
    ("files = !ls", "files = !ls", "an assignment from a shell command"),
    ("t = %timeit -o x", "t = %timeit -o x", "an assignment from a line magic"),
    ("len?", "len?", "a request for help"),
    ("str.join??", "str.join??", "a request for help"),
    ("?len", "?len", "a request for help"),
    ("pip install numpy", "pip install numpy", "a shell command"),
    ("    %timeit x", "%timeit x", "a line magic"),
    ("In [1]: %timeit x", "%timeit x", "a line magic"),
]


async def test_a_line_of_ipython_is_named(host: pyrepl3.Session) -> None:
    async def check(code: str, line: str, what: str) -> None:
        error = (await run(host, code)).error
        assert error is not None
        assert (error.kind, error.type) == ("compilation", error.type)
        assert error.message.startswith(f"{line!r} is {what}")
        assert 'ExecutorConfig(syntax="ipython")' in error.message
        assert "pyrepl3[ipython]" in error.message
        assert error.suggestion is None

    await check_rows(((row[0], *row) for row in IPYTHON_LINES), check)


NOT_IPYTHON = ["x = (1\n%y z)", "x = 5 %", "f'{x!'", "x ? y : z", "a = b % c d", "if !x: pass"]


async def test_other_errors_are_not_taken_for_ipython(host: pyrepl3.Session) -> None:
    async def check(code: str) -> None:
        error = (await run(host, code)).error
        assert error is not None
        assert "IPython" not in error.message

    await check_rows(((code, code) for code in NOT_IPYTHON), check)


# --- warnings ------------------------------------------------------------------------------------------------

WARN = "import warnings\nwarnings.warn({})"
WARNINGS: list[tuple[str, list[str], list[int]]] = [
    ("in each cell", [WARN.format("'a'"), WARN.format("'a'")], [1, 1]),
    ("once for a line in a loop", ["import warnings\nfor i in range(3): warnings.warn('b')"] * 2, [1, 1]),
    ("of each line", ["import warnings\nwarnings.warn('c')\nwarnings.warn('c')"], [2]),
    ("from a function of an earlier cell", ["import warnings\ndef f(): warnings.warn('d')", "f()", "f(); f()"], [0, 1, 1]),
    ("in other cells of the same length", [WARN.format("'e'"), "import warnings\n\nwarnings.warn('e')"], [1, 1]),
    ("of deprecations in the session's own code", [WARN.format("'g', DeprecationWarning")] * 2, [1, 1]),
    ("not where the code filters them", ["import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    warnings.warn('h')"], [0]),
    ("past the outermost frame", [WARN.format("'i', stacklevel=2"), WARN.format("'i', stacklevel=9")], [1, 1]),
    ("of the compiler", ["x = '\\d'\nx is 'a'"], [2]),
    ("of the compiler, each time the same code is run", ["x = '\\e'\nassert (x, 'm')"] * 3, [2, 2, 2]),
    ("of the compiler, once they are no longer ignored", ["import warnings\nwarnings.simplefilter('ignore')", "x = 1\nx is 2", "warnings.simplefilter('default')", "x = 1\nx is 2", "warnings.resetwarnings()"], [0, 0, 0, 1, 0]),
    ("in a task", ["import asyncio, warnings\nasync def f(): warnings.warn('j')\nawait asyncio.create_task(f())"] * 2, [1, 1]),
    ("in a thread", ["import threading, warnings\nt = threading.Thread(target=lambda: warnings.warn('k')); t.start(); t.join()"] * 2, [1, 1]),
]  # fmt: skip


async def test_a_warning_is_shown_once_for_a_cell_and_line(host: pyrepl3.Session) -> None:
    async def check(cells: list[str], counts: list[int]) -> None:
        shown = [(await run(host, cell)).stderr for cell in cells]
        assert [text.count("Warning: ") for text in shown] == counts
        assert "pyrepl3_" not in "".join(shown)

    await check_rows(WARNINGS, check)


async def test_a_coroutine_that_goes_late_is_named_by_its_own_line(host: pyrepl3.Session) -> None:
    """What holds it is the last exception, which the worker's own lines let go."""
    await run(host, "async def f(): pass\ndef g(c): 1/0\ng(f())")
    shown = (await run(host, "1/0")).stderr
    assert "coroutine 'f' was never awaited\n  async def f(): pass" in shown
    assert "pyrepl3_" not in shown


# --- what the code prints of its errors -----------------------------------------------------------------------

OWN_LINES: list[tuple[str, str, str]] = [
    ("print_exc", "import traceback\ntry: fails()\nexcept ValueError: traceback.print_exc()", "try: fails()"),
    ("format_exception", "import traceback\ntry: fails()\nexcept ValueError as e: print(*traceback.format_exception(e))", "try: fails()"),
    ("extract_tb", "import traceback\ntry: fails()\nexcept ValueError as e: print(traceback.extract_tb(e.__traceback__))", "in <module>"),
    ("print_stack", "import traceback\ndef f(): traceback.print_stack()\nf()", "f()"),
    ("print_stack in a task", "import asyncio, traceback\nawait asyncio.sleep(0)\ntraceback.print_stack()", "traceback.print_stack()"),
    ("logging.exception", "import logging\ntry: fails()\nexcept ValueError: logging.exception('x')", "try: fails()"),
    ("logging's stack_info", "import logging\nlogging.error('x', stack_info=True)", "logging.error('x', stack_info=True)"),
    ("a thread", "import threading\nt = threading.Thread(target=lambda: fails()); t.start(); t.join()", "Exception in thread"),
    ("a thread that calls the host itself", "import threading\nt = threading.Thread(target=fails); t.start(); t.join()", "ValueError: from the host"),
    ("a task", "import asyncio, gc\nasync def f(): fails()\nt = asyncio.create_task(f())\nawait asyncio.wait([t])\ndel t\ngc.collect()", "Task exception was never retrieved"),
    ("a loop's callback", "import asyncio\nasyncio.get_running_loop().call_soon(lambda: fails())\nawait asyncio.sleep(0.001)", "Exception in callback"),
    ("a finalizer", "class A:\n    def __del__(self): fails()\na = A()\ndel a", "Exception ignored in: <function A.__del__"),
    ("asyncio.run", "import asyncio, traceback\nasync def f(): 1/0\ntry: asyncio.run(f())\nexcept ZeroDivisionError: traceback.print_exc()", "async def f(): 1/0"),
    ("time.sleep", "import time, traceback\ntry: time.sleep('x')\nexcept TypeError: traceback.print_exc()", "try: time.sleep('x')"),
    ("input", "import traceback\ntry: input()\nexcept EOFError: traceback.print_exc()", "try: input()"),
    ("faulty __repr__ in a log", "import logging\nclass A:\n    def __repr__(self): 1/0\nlogging.error('%r', A())", "def __repr__(self): 1/0"),
]  # fmt: skip


async def test_no_line_of_ours_is_printed(host: pyrepl3.Session) -> None:
    async def check(code: str, part: str) -> None:
        result = await run(host, code)
        text = result.stdout + result.stderr
        assert result.error is None
        assert part in text
        assert "pyrepl3_" not in text

    await check_rows(OWN_LINES, check)


# --- the REPL's hooks -------------------------------------------------------------------------------------------

HOOKS: list[tuple[str, list[str], list[object]]] = [
    ("sys.last_* are set", ["1/0", "import sys\n[sys.last_type.__name__, str(sys.last_value), sys.last_exc is sys.last_value]"], [None, ["ZeroDivisionError", "division by zero", True]]),
    ("sys.last_traceback begins in the cell", ["def f(): {}['k']\nf()", "import sys\n[sys.last_traceback.tb_frame.f_code.co_name, sys.last_traceback.tb_next.tb_frame.f_code.co_name, sys.last_traceback.tb_next.tb_next]"], [None, ["<module>", "f", None]]),
    ("they are set by a SyntaxError too", ["x = = 1", "import sys\n[sys.last_type.__name__, sys.last_traceback, sys.last_value.lineno]"], [None, ["SyntaxError", None, 1]]),
    ("in a task", ["import asyncio\nawait asyncio.sleep(0)\n1/0", "import sys\nsys.last_traceback.tb_frame.f_code.co_name"], [None, "<module>"]),
    ("the last exception can be printed", ["{}['late']", "import sys, traceback\ntext = ''.join(traceback.format_exception(sys.last_exc))\n'pyrepl3_' not in text and \"{}['late']\" in text"], [None, True]),
    ("a displayhook gets a value", ["import sys\nseen = []\nsys.displayhook = seen.append", "1 + 1", "x = 3", "None", "import asyncio\nawait asyncio.sleep(0, 7)", "8;", "sys.displayhook = sys.__displayhook__", "seen"], [None, 2, 3, None, 7, None, None, [2, None, 7]]),
    ("a displayhook that fails", ["import sys\nsys.displayhook = lambda v: 1/0", "5", "sys.displayhook = sys.__displayhook__;"], [None, ZeroDivisionError, None]),
    ("an excepthook gets an error", ["import sys\nsaid = []\nsys.excepthook = lambda t, v, tb: said.append([t.__name__, v.args[0], tb and tb.tb_lineno])", "\n1/0", "x = = 1", "sys.excepthook = sys.__excepthook__", "said"], [None, ZeroDivisionError, SyntaxError, None, [["ZeroDivisionError", "division by zero", 2], ["SyntaxError", "invalid syntax", None]]]),
    ("the last error is the code's own SyntaxError, not its cause", ["try: compile('a b', 'f', 'exec')\nexcept SyntaxError as e: raise SyntaxError('mine') from e", "import sys\n[str(sys.last_value), sys.last_traceback.tb_lineno]"], [SyntaxError, ["mine", 2]]),
    ("a class whose metaclass refuses attributes is called", ["class M(type):\n    def __getattribute__(c, n): raise ValueError('no')\nclass C(metaclass=M): ...", "C() is C", "del C, M"], [None, None, None]),
    ("an excepthook does not get SystemExit", ["import sys\nsaid = []\nsys.excepthook = lambda *a: said.append(1)", "sys.exit(3)", "sys.excepthook = sys.__excepthook__", "said"], [None, SystemExit, None, []]),
]  # fmt: skip


async def test_hooks_are_those_of_pythons_repl(host: pyrepl3.Session) -> None:
    async def check(cells: list[str], expected: list[Any]) -> None:
        for cell, wanted in zip(cells, expected, strict=True):
            result = await run(host, cell)
            if isinstance(wanted, type):
                assert result.error is not None
                assert result.error.type == wanted.__name__
            elif wanted is not None:
                assert result.error is None, result.error.traceback
                assert result.value == wanted

    await check_rows(HOOKS, check)


async def test_an_excepthook_that_fails_is_named(host: pyrepl3.Session) -> None:
    await run(host, "import sys\nsys.excepthook = lambda *a: {}['hook']")
    result = await run(host, "1/0")
    await run(host, "sys.excepthook = sys.__excepthook__")
    assert result.error is not None
    assert result.error.type == "ZeroDivisionError"
    assert result.stderr.startswith("Error in sys.excepthook:\nTraceback (most recent call last):\n")
    assert "KeyError: 'hook'" in result.stderr


# --- debuggers and consoles --------------------------------------------------------------------------------------

SESSIONS: list[tuple[str, str, list[str | None], list[str]]] = [
    ("pdb.set_trace", "import pdb\ndef f(a):\n    pdb.set_trace()\n    b = a + 1\n    return b\nf(1)", ["p a", "n", "n", "p b", "c"], ["> <cell ", "-> b = a + 1", "1\n", "2\n"]),
    ("breakpoint", "def g():\n    breakpoint()\n    return 5\ng()", ["l", "c"], ["\t    breakpoint()", "\t    return 5"]),
    ("where shows the code's frames", "def g():\n    breakpoint()\ndef h(): g()\nh()", ["w", "u", "u", "u", "c"], ["(4)<module>", "(3)h()", "(2)g()", "*** Oldest frame"]),
    ("in a coroutine", "import asyncio\nasync def co():\n    breakpoint()\n    return 1\nawait co()", ["w", "p 6 * 7", "c"], [")co()", "42\n"]),
    ("in a thread", "import threading\ndef t():\n    breakpoint()\nx = threading.Thread(target=t); x.start(); x.join()", ["w", "c"], ["(3)t()"]),
    ("post mortem, in the user's frame", "def f(z):\n    1 / z\ntry: f(0)\nexcept ZeroDivisionError as e:\n    import pdb; pdb.post_mortem(e.__traceback__)", ["p z", "u", "d", "q"], ["-> 1 / z", "0\n"]),
    ("code.interact", "import code\nk = 3\ncode.interact(banner='', exitmsg='', local=globals())", ["k + 1", "def q():", "    return 9", "", "q()", None], ["4\n", "9\n"]),
    ("pdb's interact", "breakpoint()\nq = 1", ["interact", "6 * 7", None, "c"], ["42\n"]),
    ("the end of answers ends pdb", "breakpoint()\nq = 1", [None], ["BdbQuit"]),
]  # fmt: skip


async def test_debuggers_are_used_by_way_of_on_input(host: pyrepl3.Session) -> None:
    async def check(code: str, answers: list[str | None], parts: list[str]) -> None:
        left = iter(answers)

        def answer(prompt: str) -> str | None:
            return next(left)

        result = await run(host, code, on_input=answer)
        text = result.stdout + (result.error.traceback if result.error else "")
        for part in parts:
            assert part in text
        assert "pyrepl3_" not in text
        assert next(left, "used") == "used"

    await check_rows(SESSIONS, check)


async def test_pm_begins_in_the_frame_that_failed(host: pyrepl3.Session) -> None:
    await run(host, "def f(local):\n    return 1 / local\nf(0)")
    answers = iter(["p local", "u", "u", "q"])

    def answer(prompt: str) -> str:
        return next(answers)

    shown = (await run(host, "import pdb; pdb.pm()", on_input=answer)).stdout
    assert "-> return 1 / local" in shown
    assert "\n0\n" in shown
    assert "*** Oldest frame" in shown
    assert "pyrepl3_" not in shown


async def test_what_steps_through_a_cell_ends_with_it(host: pyrepl3.Session) -> None:
    asked: list[str] = []

    def step(prompt: str) -> str:
        asked.append(prompt)
        return "n"

    assert (await run(host, "breakpoint()\nx = 1\nx + 1", on_input=step)).value == 2
    before = len(asked)
    assert before >= 2
    assert (await run(host, "def f(): return 3\nf()", on_input=step)).value == 3
    assert len(asked) == before


INTERRUPTED = [
    ("pdb", "import pdb; pdb.set_trace()\nx = 1", "BdbQuit"),
    ("breakpoint in a function", "def g():\n    breakpoint()\n    return 1\ng()", "BdbQuit"),
    ("breakpoint in a coroutine", "async def g():\n    breakpoint()\n    return 1\nawait g()", "BdbQuit"),
    ("post mortem", "import pdb\ntry: 1/0\nexcept Exception: pdb.post_mortem()", "BdbQuit"),
    (
        "input that is asked again",
        "while True:\n    try: input()\n    except KeyboardInterrupt: pass",
        "KeyboardInterrupt",
    ),
    (
        "awaited input that is asked again",
        "while True:\n    try: await input()\n    except BaseException: pass",
        "KeyboardInterrupt",
    ),
    (
        "a line of stdin that is asked again",
        "import sys\nwhile True:\n    try: sys.stdin.readline()\n    except BaseException: pass",
        "KeyboardInterrupt",
    ),
    ("code.interact", "import code; code.interact()", ""),
    ("cmd", "import cmd; cmd.Cmd().cmdloop()", "KeyboardInterrupt"),
    ("input", "input()", "KeyboardInterrupt"),
]


async def test_an_interrupt_ends_a_prompt_at_once(host: pyrepl3.Session) -> None:
    """At once: by the first interrupt, before a second one or the worker's end would follow."""
    worker = host.worker.pid

    async def check(code: str, error: str) -> None:
        asked = anyio.Event()
        prompts: list[str] = []

        async def never(prompt: str) -> str:
            prompts.append(prompt)
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError

        execution = host.start(code, check=False, on_input=never)
        await asked.wait()
        await execution.cancel("interrupt")
        result = await execution
        assert (result.error.type if result.error else "") == error
        assert (result.error.kind if result.error else "cancelled") == "cancelled"
        assert len(prompts) == 1
        assert host.worker.pid == worker

    await check_rows(INTERRUPTED, check)


async def test_what_asks_once_more_while_it_cleans_up_is_answered(host: pyrepl3.Session) -> None:
    """It is another place in the code than the one that was interrupted."""
    asked = anyio.Event()

    async def answer(prompt: str) -> str:
        if prompt == "save?":
            return "yes"
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    code = "try: input('next')\nexcept KeyboardInterrupt: said = input('save?')\nsaid"
    execution = host.start(code, check=False, on_input=answer)
    await asked.wait()
    await execution.cancel("interrupt")
    assert (await execution).value == "yes"


# --- what Python drops of an interrupt --------------------------------------------------------------------------

HANG = "class E(Exception):\n    def __str__(self):\n        while True: pass\n"
DROPPED: list[tuple[str, str]] = [
    ("an unraisablehook", "import sys\nclass D:\n    def __del__(self): 1/0\ndef hook(u):\n    while True: pass\nsys.unraisablehook = hook\ntry:\n    d = D()\n    del d\nfinally: sys.unraisablehook = sys.__unraisablehook__"),
    ("print_exc", HANG + "import traceback\ntry: raise E\nexcept E: traceback.print_exc()"),
    ("format_exc, and nothing after it", HANG + "import traceback\ntry: raise E\nexcept E: traceback.format_exc()"),
    ("print_exc after an await", HANG + "import asyncio, traceback\nawait asyncio.sleep(0)\ntry: raise E\nexcept E: traceback.print_exc()\n'on'"),
    ("print_exc beside a task", HANG + "import asyncio, time, traceback\nt = asyncio.create_task(asyncio.sleep(60))\ntry:\n    try: raise E\n    except E: traceback.print_exc()\n    'on'\nfinally: t.cancel()"),
    ("a chain of two that hang", HANG + "import traceback\ntry:\n    try: raise E\n    finally: raise E\nexcept E: traceback.print_exc()\n'on'"),
    ("notes", "import traceback\nclass E(Exception):\n    @property\n    def __notes__(self):\n        while True: pass\ntry: raise E\nexcept E: traceback.print_exc()\n'on'"),
    ("local variables", "import traceback\nclass R:\n    def __repr__(self):\n        while True: pass\ndef f():\n    r = R()\n    try: 1/0\n    except ZeroDivisionError as e: return str(traceback.TracebackException.from_exception(e, capture_locals=True))\nf()"),
    ("logging", HANG + "import logging\nlogging.warning(E())\n'on'"),
    ("a finalizer", "class D:\n    def __del__(self):\n        while True: pass\nd = D()\ndel d"),
    ("the callback of a weak reference", "import weakref\nclass D: pass\nd = D()\ndef f(r):\n    while True: pass\nr = weakref.ref(d, f)\ndel d"),
]  # fmt: skip


@pytest.mark.parametrize("blocking", ["auto", "thread"])
async def test_a_timeout_that_python_drops_ends_its_cell(blocking: Literal["auto", "thread"]) -> None:
    async with pyrepl3.open_session(config=quick(blocking=blocking), recovery="none") as session:

        async def check(code: str) -> None:
            # Blocking code, so that `blocking=` counts.
            result = await run(session, "import time\ntime.sleep(0)\n" + code, timeout=0.05)
            assert type_of(result) == "TimeoutError"
            assert result.error is not None
            assert result.error.kind == "timeout"

        await check_rows(DROPPED, check)
        code = f"{HANG}import traceback\ntry: raise E\nexcept E:\n    try:\n        traceback.print_exc()\n        while True: pass\n    except TimeoutError: said = 'late'\nsaid"
        assert (await run(session, code, timeout=0.05)).value == "late"
        assert session.worker.incarnation == 1


def test_the_tables_are_long_enough() -> None:
    tables = (
        (SYNTAX_ERRORS, SUGGESTIONS, PROMPTS, IPYTHON_LINES, WARNINGS),
        (OWN_LINES, HOOKS, SESSIONS, INTERRUPTED),
    )
    assert sum(len(table) for group in tables for table in group) >= 120
