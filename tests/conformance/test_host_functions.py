"""Host functions, as a table: what code does with them, and what it gets. On one real worker.

Below the table stands what takes a session of its own, or more than one cell.
"""

import asyncio
import contextlib
import functools
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import CallContext, CallRequest, capability
from pyrepl3_schemas.messages import Output
from tests.helpers.real_sessions import quick, run, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


# --- the host -----------------------------------------------------------------------------------------


class NoSuchPage(LookupError):  # noqa: N818 - its name is what is tested
    """An exception of the host's own `__main__` or tests: the worker has no such module."""


async def fetch(word: str, *, limit: int = 3) -> dict[str, Any]:
    """Fetch a page.

    It may take a while.
    """
    await asyncio.sleep(0)
    return {"word": word, "limit": limit}


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def keyed(word: str, key: str, *, strict: bool = True) -> list[Any]:
    """Look a word up with a key."""
    return [word, key, strict]


def keyed_by_default(word: str, _key: str = "s3cret", **rest: int) -> list[Any]:
    return [word, _key, rest]


def anything(*args: int, **kwargs: int) -> list[Any]:
    return [args, kwargs]


def with_context(context: CallContext, word: str, *rest: str) -> list[Any]:
    return [context.call_id.partition(":")[2], word, rest]


class Shop:
    """Has a method that is offered."""

    def price(self, item: str, /, currency: str = "EUR") -> str:
        """Say a price."""
        return f"{item}: 3 {currency}"

    async def __call__(self, item: str) -> str:
        return item.upper()


def noted() -> None:
    error = ValueError("bad column")
    error.add_note("did you mean 'price'?")
    raise error


def caused() -> None:
    try:
        raise ConnectionError("host x is unreachable")  # noqa: TRY301 - what is caught is the test
    except ConnectionError as error:
        raise RuntimeError("the tool failed") from error


def handled() -> None:
    try:
        raise KeyError("private")  # noqa: TRY301 - what is caught is the test
    except KeyError:
        raise RuntimeError("the tool failed")  # noqa: B904 - a context that is no cause


def grouped() -> None:
    raise ExceptionGroup("2 uploads failed", [ValueError("a.csv: too big"), OSError("b.csv: gone")])


def unique() -> None:
    raise sqlite3.IntegrityError("UNIQUE constraint failed")


def undecodable() -> None:
    b"\xff".decode()


def missing() -> None:
    raise NoSuchPage("page 7")


def absent() -> None:
    raise FileNotFoundError(2, "No such file or directory", "/private/x")


async def fails() -> None:
    raise ValueError("down")


def returns_a_coroutine(word: str) -> Any:
    return fetch(word)


async def only_small(request: CallRequest) -> bool:
    await asyncio.sleep(0)
    return request.args[0] < 100


def never(request: CallRequest) -> bool:
    raise RuntimeError(f"nobody to ask about {request.name}{request.args}")


HOST: dict[str, Any] = {
    "fetch": fetch, "add": add, "anything": anything, "with_context": with_context,
    "partial": functools.partial(keyed, key="s3cret"), "positional": functools.partial(keyed, "bound"),
    "loose": functools.partial(anything, key=7), "keyed_by_default": keyed_by_default,
    "price": Shop().price, "shop": Shop(), "hypot": functools.partial(pow, 2),
    "noted": noted, "caused": caused, "handled": handled, "grouped": grouped, "unique": unique,
    "undecodable": undecodable, "missing": missing, "absent": absent, "fails": fails,
    "returns_a_coroutine": returns_a_coroutine,
    "blocking_fetch": capability(fetch, awaitable=False), "awaitable_add": capability(add, awaitable=True),
    "masked": capability(unique, errors="masked"), "masked_own": capability(missing, errors="masked"),
    "twice": capability(add, max_calls=2), "no_calls": capability(add, max_calls=0),
    "approved": capability(add, approve=only_small), "unasked": capability(add, approve=never),
    "slow": capability(asyncio.Event().wait, timeout=0.01),
}  # fmt: skip


# --- the table ----------------------------------------------------------------------------------------


class Raises(NamedTuple):
    """The cell fails with an exception of this type, whose text holds this."""

    type_name: str
    text: str = ""


class Warns(NamedTuple):
    """The cell succeeds, and this stands in its stderr."""

    text: str


SAYS_AWAIT = "fetch() is a coroutine function here: write await fetch(…)"
THREAD = "import threading\nsaid = []\ndef work():\n    try: said.append({call})\n    except Exception as e: said.append(f'{{type(e).__name__}}: {{e}}')\nt = threading.Thread(target=work); t.start(); t.join()\n{after}"

TABLE: list[tuple[str, str, object]] = [
    # What a call gives.
    ("a def gives its value", "add(1, 2)", 3),
    ("a def gives its value beside an await", "import asyncio\nawait asyncio.sleep(0)\nadd(1, 2)", 3),
    ("a def gives its value in a coroutine", "async def f():\n    x = add(1)\n    return x + 1\nawait f()", 3),
    ("a def gives its value in a function", "def f(): return add(1) + 1\nf()", 3),
    ("a def gives its value in a comprehension", "[add(i) for i in range(3)]", [1, 2, 3]),
    ("a def gives its value in map", "list(map(add, range(3)))", [1, 2, 3]),
    ("a def may be awaited", "await add(1, 2)", 3),
    ("a def may be awaited in an expression", "(await add(1)) + (await add(2))", 5),
    ("a def may be awaited with unpacked arguments", "await add(*[1], **{'b': 4})", 5),
    ("a def that is awaited does not hold the loop", "import asyncio\nseen = []\nasync def beat():\n    while True:\n        seen.append(1)\n        await asyncio.sleep(0)\nt = asyncio.create_task(beat())\nfor _ in range(3): await add(1)\nt.cancel()\nlen(seen) > 1", True),
    ("an async def gives an awaitable", "x = fetch('a')\nawait x", {"word": "a", "limit": 3}),
    ("an async def gives an awaitable in a sync cell", "x = fetch('a')\ntype(x).__name__ == 'dict'", False),
    ("an awaitable may be awaited twice", "x = fetch('a')\n(await x) == (await x)", True),
    ("it is sent at once", "a, b = fetch('a'), fetch('b')\n[(await b)['word'], (await a)['word']]", ["b", "a"]),
    ("a plain function that returns a coroutine is a def", "returns_a_coroutine('a')['word']", "a"),
    ("an object with an async __call__ is a coroutine function", "await shop('a')", "A"),
    ("awaitable=False", "blocking_fetch('a')['word']", "a"),
    ("awaitable=True", "x = awaitable_add(1)\nawait x", 2),
    ("inspect knows a coroutine function", "import inspect\n[inspect.iscoroutinefunction(f) for f in (fetch, shop, awaitable_add, add, blocking_fetch)]", [True, True, True, False, False]),
    ("asyncio knows its call", "import asyncio, inspect\nx = fetch('a')\nr = [asyncio.iscoroutine(x), inspect.isawaitable(x)]\nawait x\nr", [True, True]),
    # Several at once.
    ("gather", "import asyncio\n[p['word'] for p in await asyncio.gather(fetch('a'), fetch('b'))]", ["a", "b"]),
    ("create_task", "import asyncio\nt = asyncio.create_task(fetch('a'))\n(await t)['word']", "a"),
    ("wait_for", "import asyncio\n(await asyncio.wait_for(fetch('a'), 10))['word']", "a"),
    ("shield", "import asyncio\n(await asyncio.shield(fetch('a')))['word']", "a"),
    ("as_completed", "import asyncio\nsorted([(await c)['word'] for c in asyncio.as_completed([fetch('a'), fetch('b')])])", ["a", "b"]),
    ("TaskGroup", "import asyncio\nasync with asyncio.TaskGroup() as g: t = [g.create_task(fetch(w)) for w in 'ab']\n[x.result()['word'] for x in t]", ["a", "b"]),
    ("timeout", "import asyncio\nasync with asyncio.timeout(10): r = await fetch('a')\nr['word']", "a"),
    ("asyncio.run", "import asyncio\nasync def f(): return (await fetch('a'))['word']\nasyncio.run(f())", "a"),
    ("an awaitable made outside of asyncio.run", "import asyncio\nx = fetch('a')\nasync def f(): return (await x)['word']\nasyncio.run(f())", "a"),
    ("a def in to_thread", "import asyncio\nawait asyncio.gather(*(asyncio.to_thread(add, i) for i in range(3)))", [1, 2, 3]),
    ("a def in a pool", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as p: r = list(p.map(add, range(3)))\nr", [1, 2, 3]),
    ("awaitable=False in a pool", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as p: r = [x['word'] for x in p.map(blocking_fetch, 'ab')]\nr", ["a", "b"]),
    ("an awaitable in a thread, by its loop", "import asyncio\nloop = asyncio.get_running_loop()\nawait asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(fetch('a'), loop).result()['word'])", "a"),
    ("an awaitable used in a thread", THREAD.format(call="fetch('a')['word']", after="'run_coroutine_threadsafe' in said[0] and 'awaitable=False' in said[0]"), True),
    ("an awaitable on a thread's own loop", "import asyncio\nasync def f(): return await fetch('a')\n" + THREAD.format(call="asyncio.run(f())", after="said[0].startswith('AsyncContextError') and 'run_coroutine_threadsafe' in said[0]"), True),
    # What explains itself.
    *[(f"without await: {code}", code, Raises("TypeError", SAYS_AWAIT)) for code in (
        "len(fetch('a'))", "fetch('a')['word']", "fetch('a') + 1", "1 + fetch('a')", "for x in fetch('a'): pass",
        "if fetch('a'): pass", "fetch('a') < 1", "fetch('a')()", "int(fetch('a'))", "-fetch('a')", "'a' in fetch('a')",
        "x = fetch('a')\nx['word'] = 1", "[*fetch('a')]", "f\"{fetch('a'):.2f}\"", "with fetch('a'): pass",
    )],
    ("without await: an attribute", "fetch('a').word", Raises("AttributeError", SAYS_AWAIT)),
    ("without await: hasattr", "hasattr(fetch('a'), 'word')", False),
    ("its repr says what to write", f"{SAYS_AWAIT!r} in repr(fetch('a'))", True),
    ("its text in an f-string says so too", f"{SAYS_AWAIT!r} in f\"{{fetch('a')}}\"", True),
    ("equality, hash and copies are an object's", "import copy\nx = fetch('a')\nr = [x == x, x == 1, hash(x) == hash(x), copy.copy(x) is x, copy.deepcopy([x])[0] is x]\nawait x\nr", [True, False, True, True, True]),
    ("it cannot be pickled", "import pickle\npickle.dumps(fetch('a'))", Raises("TypeError", "cannot be saved; await it")),
    ("a forgotten await is named", "fetch('a')\nNone", Warns("the call of fetch() was never awaited, and is given up")),
    ("and its line is shown", "x = 1\nfetch('a')\nNone", Warns(":2: RuntimeWarning")),
    ("the warning can be an error", "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    fetch('a')\n'quiet'", "quiet"),
    ("a call that is closed is not named", "x = fetch('a')\nx.close()\nwith_nothing = 1", 1),
    # What is shown.
    ("the signature of a def", "import inspect\nstr(inspect.signature(add))", "(a: int, b: int = ...) -> int"),
    ("the signature of an async def", "import inspect\nstr(inspect.signature(fetch))", "(word: str, *, limit: int = ...) -> dict[str, typing.Any]"),
    ("the signature of a method", "import inspect\nstr(inspect.signature(price))", "(item: str, /, currency: str = ...) -> str"),
    ("True, False and None tell nothing", "import inspect\nstr(inspect.signature(partial))", "(word: str, *, strict: bool = True) -> list[typing.Any]"),
    ("partial's positional arguments", "import inspect\nlist(inspect.signature(positional).parameters)", ["key", "strict"]),
    ("a private default", "import inspect\nlist(inspect.signature(keyed_by_default).parameters)", ["word", "rest"]),
    ("a context parameter", "import inspect\nlist(inspect.signature(with_context).parameters)", ["word", "rest"]),
    ("annotations are types where they are built in", "import inspect\ninspect.signature(add).parameters['a'].annotation is int", True),
    ("no source of ours is shown as its own", "import inspect\ntry:\n    shown = inspect.getsource(add)\nexcept OSError as error:\n    shown = str(error)\nshown", "could not get source code"),
    ("a signature binds", "import inspect\ninspect.signature(add).bind(1, b=2).arguments", {"a": 1, "b": 2}),
    ("the docstring", "fetch.__doc__.splitlines()", ["Fetch a page.", "", "It may take a while."]),
    ("the docstring of a partial", "partial.__doc__", "Look a word up with a key."),
    ("its name", "[fetch.__name__, fetch.__qualname__, fetch.__module__]", ["fetch", "fetch", "builtins"]),
    ("help", "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out: help(add)\n'add(a: int, b: int = ...) -> int' in out.getvalue() and 'Add two numbers.' in out.getvalue()", True),
    ("nothing of the host's values is in reach", "import inspect\n's3cret' in repr([(f.__doc__, str(inspect.signature(f)), f.__defaults__, f.__kwdefaults__, [c.cell_contents for c in f.__closure__ or ()]) for f in (partial, keyed_by_default, loose)])", False),
    # What may be passed.
    ("what partial has bound is used", "partial('w')", ["w", "s3cret", True]),
    ("and is not passed by name", "partial('w', key='mine')", Raises("TypeError", "partial() got an unexpected keyword argument 'key'")),
    ("nor by place", "partial('w', 'mine')", Raises("TypeError", "too many positional arguments")),
    ("nor past **kwargs", "loose(1, key=8)", Raises("TypeError", "unexpected keyword argument 'key'")),
    ("**kwargs take the rest", "loose(1, other=8)", [[1], {"key": 7, "other": 8}]),
    ("a private default is used", "keyed_by_default('w', n=1)", ["w", "s3cret", {"n": 1}]),
    ("and is not passed", "keyed_by_default('w', _key='mine')", Raises("TypeError", "unexpected keyword argument '_key'")),
    ("a context stands where it likes", "with_context('w', 'x', 'y')", ["with_context:1", "w", ["x", "y"]]),
    ("wrong arguments are a TypeError", "add()", Raises("TypeError", "missing 1 required positional argument: 'a'")),
    ("an argument that was not awaited", "add(fetch('a'), 1)", Raises("TypeError", "an argument of add() was not awaited: fetch() is a coroutine function here: write await fetch(…)")),
    ("nor one by name", "add(1, b=fetch('a'))", Raises("TypeError", "an argument of add() was not awaited")),
    ("what is no data is refused at once", "add(object())", Raises("TypeError", "add() takes plain data alone")),
    # Errors.
    ("notes arrive", "try: noted()\nexcept ValueError as e: r = [str(e), e.__notes__]\nr", ["bad column", ["did you mean 'price'?"]]),
    ("a cause arrives", "try: caused()\nexcept RuntimeError as e: r = [str(e), type(e.__cause__).__name__, str(e.__cause__)]\nr", ["the tool failed", "ConnectionError", "host x is unreachable"]),
    ("what was only being handled does not", "try: handled()\nexcept RuntimeError as e: r = [e.__cause__, e.__context__]\nr", [None, None]),
    ("members arrive", "try: grouped()\nexcept ExceptionGroup as g: r = [g.message, [[type(e).__name__, str(e)] for e in g.exceptions]]\nr", ["2 uploads failed", [["ValueError", "a.csv: too big"], ["OSError", "b.csv: gone"]]]),
    ("except* takes them apart", "r = []\ntry: grouped()\nexcept* ValueError: r.append('value')\nexcept* OSError: r.append('os')\nr", ["value", "os"]),
    ("a class of the library", "import sqlite3\ntry: unique()\nexcept sqlite3.IntegrityError as e: r = [type(e) is sqlite3.IntegrityError, str(e)]\nr", [True, "UNIQUE constraint failed"]),
    ("a class of the library, as its base", "import sqlite3\ntry: unique()\nexcept sqlite3.DatabaseError: r = 1\nr", 1),
    ("a class that wants more than a text", "try: undecodable()\nexcept UnicodeDecodeError as e: r = str(e)\nr", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ("a class that is not here", "try: missing()\nexcept RuntimeError as e: r = [type(e).__name__, str(e)]\nr", ["NoSuchPage", "page 7"]),
    ("an error of the system", "try: absent()\nexcept FileNotFoundError as e: r = str(e)\nr", "[Errno 2] No such file or directory: '/private/x'"),
    ("of an async def", "try: await fails()\nexcept ValueError as e: r = str(e)\nr", "down"),
    ("in gather", "import asyncio\n[type(x).__name__ for x in await asyncio.gather(fails(), fetch('a'), return_exceptions=True)]", ["ValueError", "dict"]),
    ("in a TaskGroup", "import asyncio\ntry:\n    async with asyncio.TaskGroup() as g: g.create_task(fails())\nexcept* ValueError: r = 'caught'\nr", "caught"),
    ("no traceback of the host", "import traceback\ntry: caused()\nexcept RuntimeError as e: r = 'test_host_functions' in ''.join(traceback.format_exception(e))\nr", False),
    ("masked", "try: masked()\nexcept Exception as e: r = [type(e).__name__, str(e).endswith(\":masked:1' failed on the host\"), e.__cause__, hasattr(e, '__notes__')]\nr", ["IntegrityError", True, None, False]),
    ("masked, of its own class", "try: masked_own()\nexcept Exception as e: r = [type(e).__name__, 'page' in str(e)]\nr", ["NoSuchPage", False]),
    # Budgets and approvals.
    ("a budget", "r = [twice(1), twice(2)]\ntry: twice(3)\nexcept RuntimeError as e: r.append(str(e))\nr", [2, 3, "twice() has been called 2 times, and may not be called again in this session: its budget is max_calls=2"]),
    ("a budget of nothing", "no_calls(1)", Raises("CapabilityError", "max_calls=0")),
    ("approved", "approved(1)", 2),
    ("not approved", "approved(100)", Raises("PermissionError", "approved() was not approved (call ")),
    ("a predicate that fails", "unasked(1)", Raises("RuntimeError", "nobody to ask about unasked(1,)")),
    ("a time limit", "await slow()", Raises("TimeoutError", "capability 'slow' did not answer in time")),
    # Giving up.
    ("wait_for gives up", "import asyncio\ntry: await asyncio.wait_for(hang(), 0.01)\nexcept TimeoutError: r = 'gave up'\nr", "gave up"),
    ("asyncio.timeout gives up", "import asyncio\ntry:\n    async with asyncio.timeout(0.01): await hang()\nexcept TimeoutError: r = 'gave up'\nr", "gave up"),
    ("a cancelled task gives up", "import asyncio\nt = asyncio.create_task(hang())\nawait asyncio.sleep(0)\nt.cancel()\ntry: await t\nexcept asyncio.CancelledError: r = 'gave up'\nr", "gave up"),
    ("a task cancelled before it began", "import asyncio\nt = asyncio.create_task(hang())\nt.cancel()\ntry: await t\nexcept asyncio.CancelledError: r = 'gave up'\nr", "gave up"),
    ("a TaskGroup that fails gives up", "import asyncio\ntry:\n    async with asyncio.TaskGroup() as g:\n        g.create_task(hang())\n        g.create_task(fails())\nexcept* ValueError: r = 'gave up'\nr", "gave up"),
    ("what was given up says so", "import asyncio\nx = hang()\ntry: await asyncio.wait_for(x, 0.01)\nexcept TimeoutError: pass\nawait x", Raises("ExecutionError", "the call was given up")),
    # The names.
    ("the code's own name wins", "add = 5\nr = add\ndel add\n[r, add(1)]", [5, 2]),
    ("it is not among the variables", "'add' in globals()", False),
    ("another module sees it", "import types\nm = types.ModuleType('m')\nexec('def f(): return add(1)', vars(m))\nm.f()", 2),
    ("it is pickled by name", "import pickle\npickle.loads(pickle.dumps(add)) is add", True),
]  # fmt: skip

given_up: asyncio.Queue[str] = asyncio.Queue()


async def hang(context: CallContext) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        given_up.put_nowait(f"cancelled, abandoned: {context.abandoned}")
        raise


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick(), capabilities={**HOST, "hang": hang}) as session:
        yield session


@pytest.mark.parametrize(
    ("code", "expected"), [pytest.param(code, expected, id=name) for name, code, expected in TABLE]
)
async def test_what_code_gets(host: pyrepl3.Session, code: str, expected: object) -> None:
    result = await run(host, code)
    match expected:
        case Raises(type_name, text):
            assert result.error is not None
            assert result.error.type == type_name
            assert text in result.error.message
        case Warns(text):
            assert result.error is None
            assert text in result.stderr
        case _:
            assert result.error is None, result.error.traceback
            assert result.value == expected
    if "hang()" in code:
        assert await asyncio.wait_for(given_up.get(), 10) == "cancelled, abandoned: True"
    assert given_up.empty()


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 50
    assert len({name for name, _, _ in TABLE}) == len(TABLE)


# --- more than one cell -------------------------------------------------------------------------------


async def test_a_call_goes_on_when_its_cell_has_ended_and_a_later_one_awaits_it() -> None:
    gate = asyncio.Event()

    async def ask() -> str:
        await gate.wait()
        return "answered"

    async with pyrepl3.open_session(config=quick(), capabilities={"ask": ask}) as session:
        await run(session, "x = ask()")
        assert await value(session, "1 + 1") == 2
        gate.set()
        assert await value(session, "await x") == "answered"


async def test_what_nothing_holds_any_more_is_given_up_and_named_in_the_cell_that_made_it() -> None:
    ended = asyncio.Event()
    late: list[Output] = []

    async def ask() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with pyrepl3.open_session(
        config=quick(), capabilities={"ask": ask}, on_output=late.append
    ) as session:
        await session.execute("x = ask()\nNone", execution_id="made")
        result = await session.execute("x = _ = 1\nNone", execution_id="dropped")
        await asyncio.wait_for(ended.wait(), 10)
        await session.execute("1")
    assert result.stderr == ""
    [warning] = [output for output in late if output.stream == "stderr"]
    assert (warning.execution_id, warning.late) == ("made", True)
    assert "ask() was never awaited" in warning.data


async def test_a_prompt_that_is_given_up_is_taken_back() -> None:
    gone = asyncio.Event()

    async def answer(prompt: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return "never"

    async with pyrepl3.open_session(config=quick(), on_input=answer) as session:
        code = (
            "import asyncio\ntry:\n    async with asyncio.timeout(0.05): await input('name? ')\n"
            "except TimeoutError: r = 'gave up'\nr"
        )
        assert await value(session, code) == "gave up"
        await asyncio.wait_for(gone.wait(), 10)


async def test_a_call_that_is_held_outlives_its_worker() -> None:
    """The cell that made it is run again, and waits for the same call."""
    gate = asyncio.Event()
    calls: list[str] = []

    async def ask(context: CallContext) -> str:
        calls.append(context.call_id)
        await gate.wait()
        return "answered"

    async with pyrepl3.open_session(config=quick(), capabilities={"ask": ask}) as session:
        await session.execute("x = ask()", execution_id="e")
        os.kill(session.worker.pid, 9)
        assert await value(session, "1 + 1") == 2
        gate.set()
        assert await value(session, "await x") == "answered"
    assert calls == ["e:ask:1"]


async def test_a_restart_gives_up_what_the_code_held() -> None:
    ended = asyncio.Event()

    async def ask() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with pyrepl3.open_session(config=quick(), capabilities={"ask": ask}) as session:
        await run(session, "x = ask()")
        await session.restart()
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_task_calls_between_cells_under_its_cells_id() -> None:
    called = asyncio.Event()
    ids: list[str] = []

    async def note(context: CallContext) -> None:
        ids.append(context.call_id)
        if len(ids) == 2:
            called.set()

    async with pyrepl3.open_session(config=quick(), capabilities={"note": note}) as session:
        code = (
            "import asyncio\nasync def later():\n    await note()\n    await asyncio.sleep(0.05)\n"
            "    await note()\nt = asyncio.create_task(later())\nawait asyncio.sleep(0)"
        )
        await session.execute(code, execution_id="first")
        await asyncio.wait_for(called.wait(), 10)
        assert await value(session, "await t") is None
    assert ids == ["first:note:1.1", "first:note:1.2"]


async def test_a_cell_that_holds_the_loop_sees_what_is_offered_and_withdrawn() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        execution = session.start(
            "while True:\n    try: kept = shout; break\n    except NameError: pass\n"
            "print('ready', shout('a'))\nwhile True:\n    try: shout\n    except NameError: break\n"
            "try: kept('b')\nexcept Exception as e: said = [type(e).__name__, str(e)]\nsaid"
        )
        session.offer(shout=str.upper)
        async for event in execution:
            if isinstance(event, Output) and "ready A" in event.data:
                session.withdraw("shout")
        result = await execution.result()
    assert result.value == [
        "CapabilityError",
        "shout() is not offered any more: the host has withdrawn it",
    ]


async def test_offers_replace_each_other_and_reach_the_next_worker() -> None:
    async with pyrepl3.open_session(config=quick(), capabilities={"f": lambda: 1}) as session:
        session.offer(f=lambda: 2, display=add)
        assert await value(session, "[f(), display(3)]") == [2, 4]
        session.withdraw("display")
        assert await value(session, "display.__name__") == "display"
        await session.restart()
        assert await value(session, "f()") == 2
        with pytest.raises(pyrepl3.CapabilityError, match="no host function 'g' is offered"):
            session.withdraw("g")
        with pytest.raises(pyrepl3.CapabilityError, match="'open' needs another name"):
            session.offer(open=lambda: 1)


async def test_errors_are_logged_on_the_host_with_the_functions_own_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "pyrepl3.calls"):
        async with pyrepl3.open_session(
            config=quick(), capabilities={"masked": HOST["masked"], "no_calls": HOST["no_calls"]}
        ) as session:
            await session.execute("masked()", execution_id="e", check=False)
            await session.execute("no_calls(1)", check=False)
    first, second = caplog.records
    assert first.getMessage() == "host function 'masked' raised IntegrityError (call 'e:masked:1')"
    assert first.exc_info is not None
    assert first.exc_info[2] is not None
    assert first.exc_info[2].tb_frame.f_code.co_name == "unique"
    assert "max_calls=0" in second.getMessage()
    assert second.exc_info is None


async def test_a_plain_function_can_see_that_it_was_given_up() -> None:
    seen, ended = threading.Event(), threading.Event()

    def work(context: CallContext) -> None:
        seen.set()
        while not context.abandoned:
            pass
        ended.set()

    async with pyrepl3.open_session(config=quick(), capabilities={"work": work}) as session:
        code = "import asyncio\ntry: await asyncio.wait_for(asyncio.ensure_future(w()), 0.05)\nexcept TimeoutError: pass"
        await session.execute(f"async def w(): return await work()\n{code}")
        assert await asyncio.to_thread(ended.wait, 10)
    assert seen.is_set()


# --- with a store -------------------------------------------------------------------------------------


async def test_what_was_given_up_is_given_up_again_in_a_replay(tmp_path: Path) -> None:
    """The answer that nobody waited for does not lead the code another way."""
    calls: list[str] = []

    async def card() -> str:
        calls.append("card")
        await asyncio.Event().wait()
        return "by card"

    async def account() -> str:
        calls.append("account")
        return "by account"

    flag = tmp_path / "flag"
    code = (
        "import asyncio, os\ntry: paid = await asyncio.wait_for(card(), 0.05)\n"
        "except TimeoutError: paid = await account()\n"
        f"if not os.path.exists({str(flag)!r}):\n    open({str(flag)!r}, 'w').close()\n    await die()\npaid"
    )
    pids: list[int] = []

    async def die() -> None:
        os.kill(pids[0], 9)
        await asyncio.Event().wait()

    async with pyrepl3.open_session(
        "s",
        store=str(tmp_path / "s.db"),
        config=quick(),
        capabilities={"card": card, "account": account, "die": capability(die, repeatable=True)},
    ) as session:
        pids.append(session.worker.pid)
        result = await session.execute(code)
    assert (result.value, result.attempts) == ("by account", 2)
    assert calls == ["card", "account"]
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as database:
        [(outcome,)] = database.execute("SELECT outcome FROM calls WHERE name = 'card'").fetchall()
    assert b"the code gave it up after" in outcome


async def test_an_approval_outlives_the_program_that_asked_for_it(tmp_path: Path) -> None:
    """A program that ends while it waits asks again, under the same id, and calls once."""
    asked: list[str] = []
    paid: list[int] = []
    waiting = asyncio.Event()
    answer = False

    async def approve(request: CallRequest) -> bool:
        asked.append(request.call_id)
        waiting.set()
        if not answer:
            await asyncio.Event().wait()
        return True

    async def pay(amount: int) -> str:
        paid.append(amount)
        return f"paid {amount}"

    def opened() -> Any:
        return pyrepl3.open_session(
            "s",
            store=str(tmp_path / "s.db"),
            config=quick(),
            capabilities={"pay": capability(pay, approve=approve)},
        )

    async with opened() as session:
        session.start("receipt = await pay(21); receipt", execution_id="e")
        await asyncio.wait_for(waiting.wait(), 10)
    answer = True
    async with opened() as session:
        result = await session.execute("receipt = await pay(21); receipt", execution_id="e")
    assert result.value == "paid 21"
    assert asked == ["e:pay:1", "e:pay:1"]
    assert paid == [21]
