"""IPython's syntax in a session that asks for it, as a table: what cells give, print and raise. On one real worker.

Below the table stands what takes a session of its own, or more than one cell.
"""

import dataclasses
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import CancelReason
from tests.helpers.processes import ended
from tests.helpers.real_sessions import (
    PATIENCE,
    cleanly_stopped,
    outcome,
    quick,
    run,
    seen,
    stop,
    type_of,
    value,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("IPython") is None, reason="IPython is not installed"),
]


class Prints(NamedTuple):
    """The cell succeeds, and each of these stands in what it prints."""

    texts: tuple[str, ...]


class Warns(NamedTuple):
    """The cell succeeds, and this stands in its stderr."""

    text: str


class Shows(NamedTuple):
    """The cell succeeds, and displays something that has this form."""

    mime: str


class Raises(NamedTuple):
    """The cell fails with an exception of this type, whose text holds this."""

    type_name: str
    text: str = ""


def prints(*texts: str) -> Prints:
    return Prints(texts)


OWN_MAGICS = """
from IPython.core.magic import register_line_magic, register_cell_magic, register_line_cell_magic
@register_line_magic
def shout(line): return line.upper()
@register_cell_magic
def count(line, cell): return [line, len(cell.splitlines())]
@register_line_cell_magic
def either(line, cell=None): return [line, cell]
"""
EXTENSION = """
def load_ipython_extension(ip):
    def lcount(line): return len(line.split())
    ip.register_magic_function(lcount, 'line')
def unload_ipython_extension(ip): print('unloaded')
"""

TABLE: list[tuple[str, str, object]] = [
    # Python stays Python.
    ("a value", "1 + 1", 2),
    ("an assignment's value is the cell's", "x = 5", 5),
    ("await at the top level", "import asyncio\nawait asyncio.sleep(0, 'awaited')", "awaited"),
    ("await beside a magic", "import asyncio\ny = %time 1 + 1\nawait asyncio.sleep(0, y)", 2),
    ("a percent sign in Python", "7 % 4", 3),
    ("a percent sign at a line's beginning, in an expression", "(7\n% 4)", 3),
    ("magics in strings are text", "text = '''\n%time\n!ls\n'''\ntext", "\n%time\n!ls\n"),
    ("a semicolon gives no value", "1 + 1;", None),
    ("a SyntaxError is one", "x = = 1", Raises("SyntaxError", "invalid syntax")),
    ("an error is the code's own", "1 / 0", Raises("ZeroDivisionError", "division by zero")),
    # Line magics.
    ("%time", "%time 1 + 1", 2),
    ("%time prints", "%time None", prints("CPU times", "Wall time")),
    ("%timeit", "%timeit -n2 -r1 1 + 1", prints("per loop", "2 loops each")),
    ("%timeit -o gives its result", "r = %timeit -n3 -r1 -q -o 1 + 1\nr.loops", 3),
    ("%pwd", "import os\nd = %pwd\nd == os.getcwd()", True),
    ("%cd and back", "import os, tempfile\nold = os.getcwd()\nd = tempfile.mkdtemp()\n%cd -q $d\nr = os.getcwd() == os.path.realpath(d)\n%cd -q $old\nos.rmdir(d)\nr", True),
    ("%cd to no folder", "%cd /no/such/folder", prints("No such file or directory: '/no/such/folder'")),
    ("%env sets a variable", "import os\n%env PARITY=1 2\nos.environ['PARITY']", "1 2"),
    ("%env prints it", "%env PARITY=3", prints("env: PARITY=3")),
    ("%env gives one", "%env PARITY", "3"),
    ("%set_env", "import os\n%set_env PARITY=4\nos.environ['PARITY']", "4"),
    ("%who", "who_a = who_b = 1\n%who int", prints("who_a", "who_b")),
    ("%who shows nothing of ours", "r = %who_ls\n[n for n in r if n in ('In', 'Out', '_dh', 'get_ipython', 'exit', 'display')]", []),
    ("%whos", "who_a = 1\n%whos int", prints("Variable", "who_a")),
    ("%who_ls", "who_a = 1\nr = %who_ls int\n'who_a' in r", True),
    ("%xdel", "gone = 1\n%xdel gone\n'gone' in globals()", False),
    ("%history", "marker_of_history = 1\n%history", prints("marker_of_history = 1")),
    ("%history -l", "marker_of_last = 1\n---\n%history -l 1", prints("marker_of_last = 1")),
    ("%history -g", "marker_of_search = 1\n---\n%history -g marker_of_sea*", prints("marker_of_search = 1")),
    ("%rerun", "rerun_count = globals().get('rerun_count', 0) + 1\n---\n%rerun\n---\nrerun_count", 2),
    ("%debug of the last error", "1 / 0\n---\n%debug\n---\nimport sys\nsys.displayhook is sys.__displayhook__", True),
    ("%edit", "%edit", Raises("UsageError", "there is no editor here")),
    ("%history has cells as they were typed", "%time 1\n---\n%history -n", prints("%time 1")),
    ("%precision", "%precision 3\nimport math\n---\nmath.pi\n---\nget_ipython().display_formatter.format(math.pi)[0]['text/plain']", "3.142"),
    ("%precision is switched off", "%precision\nget_ipython().display_formatter.format(1/3)[0]['text/plain']", "0.3333333333333333"),
    ("%lsmagic", "r = %lsmagic\n'timeit' in str(r)", True),
    ("%alias", "%alias say echo said: %s\n%say hello", prints("said: hello")),
    ("%sx", "r = %sx echo a; echo b\nr", ["a", "b"]),
    ("%prun", "%prun -l 1 sum(range(10))", prints("function calls")),
    ("%pinfo", "%pinfo len", prints("Signature:", "Return the number of items")),
    ("%psource", "import textwrap\n%psource textwrap.dedent", prints("def dedent")),
    ("%pdoc", "%pdoc len", prints("Return the number of items")),
    ("%config", "%config InteractiveShell.cache_size", 1000),
    ("%logstate, which is off", "%logstate", prints("Logging has not been activated.")),
    ("%macro", "macro_x = 20\n%macro -q once 1\ntype(once).__name__", "Macro"),
    ("%store", "import os\nos.environ['HOME'] = '{FOLDER}'\nkept = 5\n%store kept\ndel kept\n%store -r kept\nkept", 5),
    ("%reload_ext of what is not there", "%load_ext no_such_extension", Raises("ModuleNotFoundError", "no_such_extension")),
    ("%config ast_node_interactivity", "%config InteractiveShell.ast_node_interactivity = 'all'\n---\n'shown first'\n'last'\n", Shows("text/plain")),
    ("and back", "%config InteractiveShell.ast_node_interactivity = 'last_expr'\n---\n1\n2", 2),
    ("automagic", "import os\n---\npwd\n---\n_ == os.getcwd()", True),
    ("an unknown magic", "%no_such_magic", Raises("UsageError", "Line magic function `%no_such_magic` not found")),
    ("an unknown cell magic", "%%no_such_magic\n1", Raises("UsageError", "Cell magic `%%no_such_magic` not found")),
    ("a magic used wrongly", "%timeit -z", Raises("UsageError", "option -z not recognized")),
    ("a UsageError can be caught", "from IPython.core.error import UsageError\ntry: get_ipython().run_line_magic('nope', '')\nexcept UsageError as e: r = type(e).__name__\nr", "UsageError"),
    # Cell magics.
    ("%%time", "%%time\nz = 3\nz + 1", 4),
    ("%%time of code that awaits", "%%time\nimport asyncio\nz = await asyncio.sleep(0, 4)\nz", 4),
    ("prints", "%%time\nawait asyncio.sleep(0)", prints("CPU times", "Wall time")),
    ("and an error is the cell's own", "%%time\nawait asyncio.sleep(0)\n1 / 0", Raises("ZeroDivisionError")),
    ("%time of an await", "%time await asyncio.sleep(0, 5)", 5),
    ("of an await in an assignment", "y = %time await asyncio.sleep(0, 6)\ny", 6),
    ("of an assignment of an await", "%time y = await asyncio.sleep(0, 7)\ny", 7),
    ("prints too", "%time y = await asyncio.sleep(0)", prints("CPU times", "Wall time")),
    ("in a coroutine", "async def timed(é):\n    for _ in 1, 2:\n        %time r = await asyncio.sleep(0, é)\n    return r\nawait timed('ü')", "ü"),
    ("as text in a string", "s = '''\n%time await x\n'''\nawait asyncio.sleep(0, s)", "\n%time await x\n"),
    ("%timeit of an await", "%timeit await asyncio.sleep(0)", Raises("UsageError", "%timeit cannot run this code, which awaits")),
    ("%%prun of an await", "%%prun\nawait asyncio.sleep(0)", Raises("UsageError", "%%prun cannot run this code, which awaits")),
    ("%%capture of an await", "%%capture caught\nprint(await asyncio.sleep(0, 8))\n---\ncaught.stdout", "8\n"),
    ("%%time of an error", "%%time\n1 / 0", Raises("ZeroDivisionError")),
    ("%%timeit", "%%timeit -n2 -r1\n1 + 1", prints("2 loops each")),
    ("%%timeit has a set-up line", "%%timeit -n1 -r1 setup_line = 5\nassert setup_line == 5", prints("per loop")),
    ("%%capture", "%%capture caught\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\n!echo command\n---\n[caught.stdout, caught.stderr]", ["out\ncommand\n", "err\n"]),
    ("%%capture of displays", "%%capture caught\nfrom IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))\n---\n[o.data['text/html'] for o in caught.outputs]", ["<b>x</b>"]),
    ("%%capture binds names as ever", "%%capture\nbound_inside = 7\nprint('quiet')\n---\nbound_inside", 7),
    ("%%capture hides no error", "%%capture\n1 / 0", Warns("ZeroDivisionError: division by zero")),
    ("%%bash", "%%bash\nfor i in 1 2; do echo line $i; done", prints("line 1\nline 2\n")),
    ("%%bash writes errors to stderr", "%%bash\necho wrong >&2", Warns("wrong\n")),
    ("%%bash that fails", "%%bash\nexit 3", Raises("CalledProcessError", "exit status 3")),
    ("%%bash --no-raise-error", "%%bash --no-raise-error\nexit 3", prints()),
    ("%%bash --out", "%%bash --out captured\necho kept\n---\ncaptured", "kept\n"),
    ("%%sh and %%script", "%%script cat\nthe cell", prints("the cell\n")),
    ("%%script of no program", "%%script no_such_program\nx", prints("Couldn't find program")),
    ("%%writefile", "%%writefile {FOLDER}/written.py\nvalue = 6 * 7\nprint('ran', value)\n", prints("Writing")),
    ("%run", "%run {FOLDER}/written.py", prints("ran 42\n")),
    ("%run binds the file's names", "%run {FOLDER}/written.py\n---\nvalue", 42),
    ("%run -i uses the session's names", "own = 1\nopen('{FOLDER}/uses.py', 'w').write('seen = own + 1')\n%run -i {FOLDER}/uses.py\nseen", 2),
    ("%run of a file that fails", "open('{FOLDER}/fails.py', 'w').write('1 / 0')\n%run {FOLDER}/fails.py", Warns("ZeroDivisionError: division by zero")),
    ("%run of no file", "%run {FOLDER}/no_such_file.py", Raises("Exception", "no_such_file.py'` not found")),
    ("%%writefile -a", "%%writefile -a {FOLDER}/written.py\nmore = 1\n", prints("Appending")),
    ("%pycat", "%pycat {FOLDER}/written.py", prints("value = 6 * 7")),
    ("%load prints what it would put into a cell", "%load {FOLDER}/written.py", prints("value = 6 * 7")),
    ("%%html", "%%html\n<i>x</i>", Shows("text/html")),
    ("%%javascript", "%%javascript\nalert(1)", Shows("application/javascript")),
    ("%%latex", "%%latex\n$x$", Shows("text/latex")),
    ("%%markdown", "%%markdown\n# x", Shows("text/markdown")),
    ("%%svg", "%%svg\n<svg/>", Shows("image/svg+xml")),
    ("%%prun", "%%prun -l 1\nsum(range(10))", prints("function calls")),
    ("%%python", "%%python\nprint(1 + 1)", prints("2\n")),
    ("%%code_wrap", "%%code_wrap twice\n__code__\n'wrapped'\n---\n1", "wrapped"),
    ("%code_wrap --remove", "%code_wrap --remove twice\n---\n1", 1),
    # Commands.
    ("!", "!echo hello", prints("hello\n")),
    ("! has the session's variables", "word = 'w1'\n!echo $word {word.upper()} $$HOME_IS_NOT_THIS", prints("w1 W1")),
    ("! sets _exit_code", "!exit 7\n_exit_code", 7),
    ("! ended by a signal", "!kill -9 $$\n_exit_code", -9),
    ("! has errors among the output", "!echo wrong >&2", prints("wrong\n")),
    ("! reads from nothing", "!cat", prints()),
    ("! writes to a terminal", "!test -t 1 && echo terminal", prints("terminal\n")),
    ("! in an indented line", "for i in range(2):\n    !echo turn $i", prints("turn 0\nturn 1\n")),
    ("! in a function", "def f(a):\n    !echo got $a\nf('it')", prints("got it\n")),
    ("! writes where print does", "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as s:\n    !echo there\ns.getvalue()", "there\n"),
    ("! leaves what goes on in the background", "!(sleep 30 & echo $$! > {FOLDER}/pid)\n!kill $(cat {FOLDER}/pid)", prints()),
    ("! with & is refused", "!sleep 1 &", Raises("OSError", "Background processes not supported")),
    ("! in a session without a newline at its end", "!printf abc", prints("abc")),
    ("x = !", "x = !echo a; echo b\nx", ["a", "b"]),
    ("x = ! has SList's methods", "x = !echo a1; echo b2\n[x.grep('b'), x.fields(0), x.s, x.n]", [["b2"], ["a1", "b2"], "a1 b2", "a1\nb2"]),
    ("!!", "!!echo a", ["a"]),
    ("get_ipython().system", "get_ipython().system('echo by hand')", prints("by hand\n")),
    ("get_ipython().getoutput", "get_ipython().getoutput('echo by hand')", ["by hand"]),
    # Help.
    ("?", "len?", prints("Signature: len(obj, /)", "Docstring: Return the number of items")),
    ("? first", "?len", prints("Signature: len(obj, /)")),
    ("??", "import textwrap\ntextwrap.dedent??", prints("Source:", "def dedent(text)")),
    ("? of what is not there", "no_such_name?", prints("Object `no_such_name` not found.")),
    ("? of a magic", "%timeit?", prints("Time execution of a Python statement")),
    ("? with a wildcard", "str.*with*?", prints("str.endswith", "str.startswith")),
    ("? of the code's own function", "def documented(a, b=2):\n    'Say it.'\n?documented", prints("Signature: documented(a, b=2)", "Say it.", "File:      <cell ")),
    # Pasted prompts.
    ("In [1]:", "In [1]: y = 2\n   ...: y", 2),
    (">>>", ">>> y = 3\n>>> y", 3),
    # The shell.
    ("get_ipython", "type(get_ipython()).__mro__[1].__name__", "InteractiveShell"),
    ("get_ipython of IPython", "import IPython\nIPython.get_ipython() is get_ipython()", True),
    ("get_ipython in a module's function", "import IPython.core.getipython as g\ng.get_ipython() is get_ipython()", True),
    ("it stands in no namespace", "[n for n in ('get_ipython', 'exit', 'quit', '__builtin__') if n in globals()]", []),
    ("InteractiveShell.instance()", "from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.instance() is get_ipython()", True),
    ("user_ns is the namespace", "get_ipython().user_ns is globals()", True),
    ("push", "get_ipython().push({'pushed': 1})\npushed", 1),
    ("ev and ex", "get_ipython().ex('evx = 4')\nget_ipython().ev('evx + 1')", 5),
    ("run_cell shows its value", "get_ipython().run_cell('run_inside = 5\\nrun_inside')\nrun_inside", 5),
    ("run_cell of an error goes on", "r = get_ipython().run_cell('1/0')\ntype(r.error_in_exec).__name__", "ZeroDivisionError"),
    ("run_line_magic", "get_ipython().run_line_magic('time', '3')", 3),
    ("execution_count", "get_ipython().execution_count == len(In)", True),
    ("In has cells as they were typed", "!true\nIn[-1]", "!true\nIn[-1]"),
    ("_ is the last value", "7 * 6\n---\n_", 42),
    ("Out has it too", "7 * 6\n---\nOut[len(In) - 2]", 42),
    ("_i is the last cell", "!true\n---\n_i", "!true"),
    ("own magics", OWN_MAGICS + "r = %shout hello\nr", "HELLO"),
    ("own cell magics", OWN_MAGICS + "\n---\n%%count a b\n1\n2", ["a b", 2]),
    ("own line and cell magics", OWN_MAGICS + "\n---\nr = %either x\nr", ["x", None]),
    ("an extension", f"open('{{FOLDER}}/wordcount_extension.py', 'w').write({EXTENSION!r})\nimport sys\nsys.path.insert(0, '{{FOLDER}}')\n%load_ext wordcount_extension\nr = %lcount a b c\nr", 3),
    ("an extension is unloaded", "%unload_ext wordcount_extension", prints("unloaded")),
    ("pre_run_cell", "told = []\nget_ipython().events.register('pre_run_cell', lambda info: told.append(info.raw_cell))\n---\ntold", ["told"]),
    ("post_run_cell", "results = []\ndef listen(r): results.append([r.result, r.success])\nget_ipython().events.register('post_run_cell', listen)\n---\n5 + 5\n---\nresults[-1]", [10, True]),
    ("post_run_cell of an await", "import asyncio\nawait asyncio.sleep(0, 'a')\n---\nresults[-1]", ["a", True]),
    ("post_run_cell of an error", "results.clear()\n1 / 0\n---\nresults[-1]", [None, False]),
    ("an event's listener that fails", "def broken(r):\n    get_ipython().events.unregister('post_run_cell', broken)\n    raise KeyError('in the listener')\nget_ipython().events.register('post_run_cell', broken)", Warns("KeyError: 'in the listener'")),
    ("an input transformer", "def swap(lines): return [l.replace('PLUS', '+') for l in lines]\nget_ipython().input_transformers_cleanup.append(swap)\n---\n1 PLUS 2", 3),
    ("a transformer that refuses", "def refuse(lines):\n    if 'REFUSE' in lines[0]: raise SyntaxError('refused')\n    return lines\nget_ipython().input_transformers_post.append(refuse)\n---\nREFUSE", Raises("SyntaxError", "refused")),
]  # fmt: skip


@pytest.fixture(scope="module")
async def ipython() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick(syntax="ipython")) as session:
        yield session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ipython")


@pytest.mark.parametrize(("code", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
async def test_what_a_cell_does(ipython: pyrepl3.Session, folder: Path, code: str, expected: object) -> None:
    *before, last = code.replace("{FOLDER}", str(folder)).split("\n---\n")
    for cell in before:
        await run(ipython, cell)
    result = await run(ipython, last)
    if isinstance(expected, Raises):
        assert result.error is not None
        assert result.error.type == expected.type_name
        assert expected.text in result.error.message
        assert "IPython/core/magic" not in result.error.traceback
        return
    assert result.error is None, result.error.traceback
    match expected:
        case Prints(texts):
            assert all(text in result.stdout for text in texts), result.stdout
            assert result.stderr == ""
        case Warns(text):
            assert text in result.stderr
        case Shows(mime):
            assert [mime in display.data for display in result.displays] == [True]
        case _:
            assert result.value == expected


# --- stopping -----------------------------------------------------------------------------------------

SLEEPS = [
    "!echo $$ > {PID}; exec sleep 600",
    "x = !echo $$ > {PID}; exec sleep 600",
    "%%bash\necho $$ > {PID}\nsleep 600 & sleep 600",
    "%%capture\n!echo $$ > {PID}; exec sleep 600",
    "for i in range(3):\n    !setsid -w sh -c 'echo $$ > {PID}; exec sleep 600'",
    "import asyncio\nawait asyncio.sleep(0)\n!echo $$ > {PID}; exec sleep 600",
]
LOOPS = [
    "print('ready')\n%timeit -n1000000 -r1000 sum(range(1000))",
    "%%capture\nimport sys\nprint('ready', file=sys.__stdout__)\nwhile True: pass",
    "%%time\nprint('ready')\nwhile True: pass",
    "print('ready')\n%run -n {LOOP}",
    "get_ipython().run_cell('print(\"ready\")\\nwhile True: pass')",
]


@pytest.mark.parametrize("code", SLEEPS)
@pytest.mark.parametrize("reason", ["cancelled", "interrupt"])
async def test_a_cancel_ends_a_command_and_its_processes(
    ipython: pyrepl3.Session, tmp_path: Path, code: str, reason: CancelReason
) -> None:
    pid_file = tmp_path / "pid"
    os.mkfifo(pid_file)
    execution = ipython.start(code.replace("{PID}", str(pid_file)))
    pid = int(await read_line(pid_file))
    result = await stop(execution, reason)
    assert result.error is not None
    assert result.error.kind == "cancelled"
    assert await ended(pid)
    assert await value(ipython, "1 + 1") == 2


@pytest.mark.parametrize("code", LOOPS)
async def test_a_cancel_ends_code_that_a_magic_runs(
    ipython: pyrepl3.Session, folder: Path, code: str
) -> None:
    loop = folder / "loop.py"
    loop.write_text("while True: pass\n")
    execution = ipython.start(code.replace("{LOOP}", str(loop)))
    await seen(execution)
    result = await stop(execution)
    assert result.error is not None
    assert result.error.kind == "cancelled"
    assert await value(ipython, "1 + 1") == 2


@pytest.mark.parametrize("magic", ["%%capture", "%%time"])
@pytest.mark.parametrize("kind", ["cancelled", "timeout"])
async def test_the_end_of_code_that_awaits_in_a_magic_is_its_end(
    ipython: pyrepl3.Session, magic: str, kind: str
) -> None:
    before = await value(ipython, "import sys\nending = []\nrepr(sys.displayhook)")
    code = (
        f"{magic}\nimport asyncio, sys\ntry:\n    print('ready', file=sys.__stdout__)\n"
        "    await asyncio.sleep(600)\nfinally:\n    await asyncio.sleep(0)\n    ending.append('ended')"
    )
    execution = ipython.start(code, timeout=1 if kind == "timeout" else None)
    await seen(execution)
    result = await (stop(execution) if kind == "cancelled" else outcome(execution))
    assert result.error is not None
    assert result.error.kind == kind
    assert await value(ipython, "ending") == ["ended"]
    assert await value(ipython, "repr(sys.displayhook)") == before


async def read_line(fifo: Path) -> str:
    """Wait until a process has written to a FIFO; give what it wrote."""
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(fifo.read_text, abandon_on_cancel=True)


async def test_a_time_limit_ends_a_command(ipython: pyrepl3.Session) -> None:
    result = await run(ipython, "!echo before; exec sleep 600", timeout=0.2)
    assert result.error is not None
    assert (result.error.kind, result.error.type) == ("timeout", "TimeoutError")
    assert result.stdout == "before\n"
    within = await run(ipython, "%%capture\nimport time\ntime.sleep(600)", timeout=0.2)
    assert within.error is not None
    assert within.error.kind == "timeout"


async def test_what_a_command_writes_arrives_before_it_ends(ipython: pyrepl3.Session) -> None:
    execution = ipython.start(f"!{sys.executable} -c 'print(\"ready\"); import time; time.sleep(600)'")
    await seen(execution)
    assert cleanly_stopped(await stop(execution))


async def test_tasks_go_on_beside_a_command(ipython: pyrepl3.Session, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    await run(
        ipython,
        "import asyncio\nasync def raise_flag():\n    for _ in range(5): await asyncio.sleep(0.01)\n"
        f"    open({str(flag)!r}, 'w').close()\ntask = asyncio.create_task(raise_flag())",
    )
    result = await run(ipython, f"!until test -e {flag}; do sleep 0.01; done; echo there")
    assert (result.stdout, result.mode) == ("there\n", "blocking_sync")


# --- errors -------------------------------------------------------------------------------------------


async def test_a_traceback_shows_the_users_lines_alone(ipython: pyrepl3.Session) -> None:
    await run(ipython, "def wrong(x):\n    return 1 / x")
    for code, files in [
        ("%time wrong(0)", ["<cell", "<timed eval>", "<cell"]),
        ("%timeit wrong(0)", ["<cell", "<magic-timeit>", "<cell"]),
        ("x = 1\n%prun -q wrong(0)", ["<cell", "<string>", "<cell"]),
        ("%%bash\nexit 1", ["<cell"]),
        ("get_ipython().ev('wrong(0)')", ["<cell", "<string>", "<cell"]),
    ]:
        error = (await run(ipython, code)).error
        assert error is not None
        shown = [frame.filename for frame in error.frames if "/python3" not in frame.filename]
        assert [name[: len(start)] for name, start in zip(shown, files, strict=True)] == files, code
        assert "site-packages/IPython" not in error.traceback
        assert "pyrepl3_worker" not in error.traceback


async def test_a_usage_error_is_one_line(ipython: pyrepl3.Session) -> None:
    error = (await run(ipython, "%no_such_magic")).error
    assert error is not None
    assert error.traceback == "UsageError: Line magic function `%no_such_magic` not found.\n"
    assert error.frames == ()


async def test_an_error_in_a_nested_cell_reads_as_one_of_a_cell(ipython: pyrepl3.Session) -> None:
    result = await run(ipython, "%%capture\ndef f():\n    raise KeyError('inside')\nf()")
    assert result.error is None
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("KeyError: 'inside'\n")
    assert "raise KeyError('inside')" in result.stderr
    assert "site-packages" not in result.stderr
    assert "pyrepl3" not in result.stderr


# --- opening ------------------------------------------------------------------------------------------


async def test_without_IPython_opening_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "IPython.py").write_text("raise ModuleNotFoundError(\"No module named 'IPython'\")\n")
    config = quick(syntax="ipython")
    config = dataclasses.replace(config, env={"PYTHONPATH": str(tmp_path)})
    with pytest.raises(pyrepl3.SpawnError, match="needs IPython 9 or newer") as caught:
        await pyrepl3.open_session(config=config)
    assert "python -m pip install ipython" in str(caught.value)
    assert sys.executable in str(caught.value)


async def test_a_plain_session_has_nothing_of_it() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        assert await value(session, "import sys\n[m for m in sys.modules if m.startswith('IPython')]") == []
        assert (await run(session, "get_ipython()")).error is not None
        assert (await run(session, "%time 1")).error is not None


async def test_nothing_is_written_into_the_home_folder(tmp_path: Path) -> None:
    config = dataclasses.replace(quick(syntax="ipython"), env={"HOME": str(tmp_path)})
    async with pyrepl3.open_session(config=config) as session:
        for code in ("%time 1", "%history", "%alias", "!echo $HOME", "%lsmagic", "%cd -q .", "x?"):
            assert (await run(session, code)).error is None
    assert os.listdir(tmp_path) == []


# --- deaths, checkpoints, places ------------------------------------------------------------------------


async def test_values_are_shown_as_IPython_shows_them(ipython: pyrepl3.Session) -> None:
    shown = [
        (await run(ipython, code)).repr
        for code in ("int", "{'b': 1, 'a': 2}", "%precision 2\n---\n1 / 3", "list(range(30))", "'text'")
        for code in code.split("\n---\n")[-1:]
    ]
    lines = shown[3].split("\n")
    assert (shown[:2], len(lines), shown[4]) == (["int", "{'b': 1, 'a': 2}"], 30, "'text'")
    await run(ipython, "%precision 2")
    assert (await run(ipython, "1 / 3")).repr == "0.33"
    await run(ipython, "%precision")


async def test_the_shells_state_outlives_its_worker() -> None:
    async with pyrepl3.open_session(config=quick(syntax="ipython"), recovery="checkpoint") as session:
        for code in (
            OWN_MAGICS,
            "%alias say echo said: %s",
            "%load_ext autoreload\n%autoreload 2",
            "%precision 2",
            "told = []\nget_ipython().events.register('pre_run_cell', lambda info: told.append(info.raw_cell))",
            "class Sums:\n    def total(self, line): return line",
            "get_ipython().register_magic_function(Sums().total, 'line')",
        ):
            assert (await run(session, code)).error is None
        saved = await session.checkpoint()
        assert [part.name for part in saved.unsaved] == ["%total"]
        assert "register the class again" in saved.unsaved[0].reason
        pid = await value(session, "import os\nos.getpid()")
        os.kill(pid, signal.SIGKILL)
        assert await value(session, "r = %shout again\nr") == "AGAIN"
        assert (await value(session, "told"))[-2:] == ["r = %shout again\nr", "told"]
        assert (await run(session, "%say hello")).stdout == "said: hello\n"
        assert (await run(session, "%autoreload 0")).error is None
        assert (await run(session, "1 / 3")).repr == "0.33"
        assert (await run(session, "!echo alive")).stdout == "alive\n"
        assert "%alias say" in (await run(session, "%history")).stdout
        assert set(await session.variables()) >= {"told", "Sums"}
        assert not {"_dh", "_ih", "_oh", "get_ipython"} & set(await session.variables())


async def test_a_reset_leaves_a_session_that_works() -> None:
    async with pyrepl3.open_session(config=quick(syntax="ipython")) as session:
        await run(session, "x = 1\n%reset -f")
        assert type_of(await run(session, "x")) == "NameError"
        assert await value(session, "7 * 6") == 42
        assert await value(session, "_ + 1") == 43
        assert (await run(session, "%cd -q .\n!echo alive")).stdout == "alive\n"


async def test_it_works_confined_and_in_pools(tmp_path: Path) -> None:
    strict = dataclasses.replace(quick(syntax="ipython"), confinement="strict")
    try:
        opened = await pyrepl3.open_session(config=strict)
    except pyrepl3.SpawnError as error:
        pytest.skip(str(error))
    async with opened as session:
        assert (await run(session, "!echo inside")).stdout == "inside\n"
        assert (await run(session, "%%bash\ncat > kept; cat kept")).error is None
        assert await value(session, "r = %timeit -n1 -r1 -q -o 1\nr.loops") == 1
    async with (
        pyrepl3.WorkerPool(1, config=quick(syntax="ipython")) as pool,
        pool.open_session() as session,
    ):
        assert await value(session, "x = !echo a\nx") == ["a"]
