"""Failures as data: type, text, notes, frames, chain, groups, suggestions."""

import pickle

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import cell_lines, quick, run, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


async def failure(session: pyrepl3.Session, code: str) -> pyrepl3.ErrorInfo:
    result = await run(session, code)
    assert result.error is not None, f"it gave {result.repr}"
    return result.error


async def test_execute_raises_with_the_users_traceback(shared: pyrepl3.Session) -> None:
    with pytest.raises(pyrepl3.ExecutionFailed) as caught:
        await shared.execute("def f():\n    return 1 / 0\nf()")
    error = caught.value
    assert str(error) == error.error.traceback
    assert str(error).startswith("Traceback (most recent call last):\n")
    assert str(error).endswith("ZeroDivisionError: division by zero\n")
    assert "return 1 / 0" in str(error)
    assert error.result.error is error.error
    assert (error.error.kind, error.error.type) == ("exception", "ZeroDivisionError")
    assert not isinstance(error, pyrepl3.ExecutionTimeout | pyrepl3.ExecutionCancelled)


async def test_failures_pickle(shared: pyrepl3.Session) -> None:
    with pytest.raises(pyrepl3.ExecutionFailed) as caught:
        await shared.execute("1/0")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


async def test_frames_name_lines_columns_and_source(shared: pyrepl3.Session) -> None:
    await shared.execute("def inner(x):\n    y = x\n    return y / 0")
    error = await failure(shared, "def outer():\n    return inner(1)\n\nouter()")
    assert [(frame.name, frame.lineno, frame.line) for frame in error.frames] == [
        ("<module>", 4, "outer()"),
        ("outer", 2, "return inner(1)"),
        ("inner", 3, "return y / 0"),
    ]
    last = error.frames[-1]
    assert (last.colno, last.end_colno, last.end_lineno) == (11, 16, 3)
    assert error.frames[0].filename == error.frames[1].filename != last.filename


MODES = {
    "sync": "{code}",
    "await": "import asyncio; await asyncio.sleep(0)\n{code}",
    "blocking": "import time; time.sleep(0)\n{code}",
    "return": "{code}\nif 1:\n    return 0",
    "asyncio.run": "import asyncio; asyncio\n{code}",
}


@pytest.mark.parametrize("mode", MODES)
async def test_no_frame_of_ours_is_shown(shared: pyrepl3.Session, mode: str) -> None:
    error = await failure(shared, MODES[mode].format(code="int('x')"))
    assert [frame.name for frame in error.frames] == ["<module>"]
    assert "pyrepl3" not in error.traceback
    assert "asyncio/" not in error.traceback


@pytest.mark.parametrize(
    "code",
    [
        "async def f():\n    1/0\nawait f()",
        "import asyncio\nasync def f():\n    1/0\nawait asyncio.gather(f())",
        "import asyncio\nasync def f():\n    1/0\nasyncio.run(f())",
        "import asyncio\nasync def f():\n    1/0\nawait asyncio.create_task(f())",
        "def f():\n    1/0\nimport asyncio\nawait asyncio.to_thread(f)",
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n    1/0\nThreadPoolExecutor(1).submit(f).result()",
        "def f():\n    1/0\nsorted([2, 1], key=lambda x: f())",
        "class A:\n    def __repr__(self):\n        1/0\nf'{A()}'",
    ],
)
async def test_frames_of_libraries_are_shown_and_ours_are_not(shared: pyrepl3.Session, code: str) -> None:
    error = await failure(shared, code)
    assert error.frames[0].name == "<module>"
    assert error.frames[-1].line == "1/0"
    assert not any("pyrepl3" in frame.filename for frame in error.frames)
    assert "pyrepl3" not in error.traceback


async def test_an_explicit_cause(shared: pyrepl3.Session) -> None:
    error = await failure(
        shared, "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('outer') from e"
    )
    assert error.cause is not None
    assert (error.cause.type, error.cause.message) == ("KeyError", "'k'")
    assert [frame.lineno for frame in error.cause.frames] == [2]
    assert "direct cause" in error.traceback


async def test_an_implicit_context(shared: pyrepl3.Session) -> None:
    error = await failure(shared, "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('outer')")
    assert error.cause is not None
    assert error.cause.type == "KeyError"
    assert "During handling of the above exception" in error.traceback


async def test_a_suppressed_context(shared: pyrepl3.Session) -> None:
    error = await failure(
        shared, "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('outer') from None"
    )
    assert error.cause is None
    assert "KeyError" not in error.traceback


async def test_a_chain_of_three(shared: pyrepl3.Session) -> None:
    error = await failure(
        shared,
        "try:\n    try:\n        raise KeyError(1)\n    except KeyError as a:\n        raise TypeError(2) from a\n"
        "except TypeError as b:\n    raise ValueError(3) from b",
    )
    assert error.cause is not None
    assert error.cause.cause is not None
    assert [error.type, error.cause.type, error.cause.cause.type] == ["ValueError", "TypeError", "KeyError"]
    assert error.cause.cause.cause is None


async def test_groups_have_members_nested_too(shared: pyrepl3.Session) -> None:
    error = await failure(
        shared,
        "raise ExceptionGroup('outer', [ValueError('a'), ExceptionGroup('inner', [KeyError('b'), OSError('c')])])",
    )
    first, second = error.members
    assert (first.type, first.message) == ("ValueError", "a")
    assert (second.type, [member.type for member in second.members]) == (
        "ExceptionGroup",
        ["KeyError", "OSError"],
    )
    assert "inner (2 sub-exceptions)" in error.traceback


async def test_members_of_a_task_group_have_their_frames(shared: pyrepl3.Session) -> None:
    error = await failure(
        shared,
        "import asyncio\nasync def bad(n):\n    raise ValueError(n)\n"
        "async with asyncio.TaskGroup() as tg:\n    tg.create_task(bad(1))\n    tg.create_task(bad(2))",
    )
    assert sorted(member.message for member in error.members) == ["1", "2"]
    assert [member.frames[-1].lineno for member in error.members] == [3, 3]


async def test_notes(shared: pyrepl3.Session) -> None:
    error = await failure(
        shared, "e = ValueError('x')\ne.add_note('first note')\ne.add_note('second\\nnote')\nraise e"
    )
    assert error.notes == ("first note", "second\nnote")
    assert "first note" in error.traceback


async def test_a_deep_stack_keeps_head_and_tail(shared: pyrepl3.Session) -> None:
    error = await failure(shared, "def f(n):\n    if n == 0:\n        1/0\n    f(n - 1)\n\nf(900)")
    assert len(error.frames) < 300
    assert error.frames[0].lineno == 6
    assert error.frames[-1].lineno == 3


async def test_system_exit_keeps_its_code(shared: pyrepl3.Session) -> None:
    error = await failure(shared, "import sys\nsys.exit('not today')")
    assert (error.kind, error.type, error.message) == ("exception", "SystemExit", "not today")


async def test_a_keyboard_interrupt_of_the_codes_own_is_no_cancel(shared: pyrepl3.Session) -> None:
    with pytest.raises(pyrepl3.ExecutionFailed) as caught:
        await shared.execute("raise KeyboardInterrupt")
    assert not isinstance(caught.value, pyrepl3.ExecutionCancelled)


async def test_the_last_exception_stays_for_looking_at(shared: pyrepl3.Session) -> None:
    await run(shared, "def g():\n    local = 7\n    1/0\ng()")
    facts = "[type(_last_exception).__name__, _last_exception is sys.last_exc, _last_exception.__traceback__.tb_next is not None]"
    assert await value(shared, f"import sys\n{facts}") == ["ZeroDivisionError", True, True]
    assert await value(shared, "import pdb, io\npdb.Pdb is not None") is True


async def test_a_failed_cell_leaves_the_last_value_alone(shared: pyrepl3.Session) -> None:
    await shared.execute("'good'")
    await run(shared, "1/0")
    assert await value(shared, "_") == "good"


MENDS = [
    ("if True\n    x = 1", "if True:\n    x = 1"),
    ("for i in range(3)  # all\n    pass", "for i in range(3):  # all\n    pass"),
    ("def f()\n    return 1", "def f():\n    return 1"),
    ("class A\n    pass", "class A:\n    pass"),
    ("while False\n    pass\nelse\n    pass", "while False:\n    pass\nelse:\n    pass"),
    ("async def f()\n    await g()", "async def f():\n    await g()"),
    ("if True:\nx = 1", "if True:\n    x = 1"),
    ("x = 1\n  y = 2", "x = 1\ny = 2"),
    ("print 'hello'", "print('hello')"),
    ("for i in 'ab':\n    print i", "for i in 'ab':\n    print(i)"),
]


@pytest.mark.parametrize(("broken", "mended"), MENDS)
async def test_suggestions(shared: pyrepl3.Session, broken: str, mended: str) -> None:
    error = await failure(shared, broken)
    assert error.kind == "compilation"
    assert error.suggestion == mended
    compile(mended, "mended", "exec")


@pytest.mark.parametrize("code", ["x = = 1", "f(", "'open", "1 = x", "def f(a, a): ...", "\0"])
async def test_no_suggestion_where_there_is_none(shared: pyrepl3.Session, code: str) -> None:
    error = await failure(shared, code)
    assert error.kind == "compilation"
    assert error.suggestion is None


async def test_a_suggestion_is_run_only_when_asked_for(shared: pyrepl3.Session) -> None:
    assert type_of(await run(shared, "if True\n    fixed = 1")) == "SyntaxError"
    assert await value(shared, "'fixed' in globals()") is False
    async with pyrepl3.open_session(config=quick(auto_fix=True)) as mending:
        assert await value(mending, "if True\n    fixed = 1\nfixed") == 1
        assert (await mending.execute("print 'hello'")).stdout == "hello\n"
        assert type_of(await run(mending, "x = = 1")) == "SyntaxError"


async def test_a_syntax_error_points_at_its_place(shared: pyrepl3.Session) -> None:
    error = await failure(shared, "x = 1\ny = (2\nz = 3")
    (frame,) = error.frames
    assert (frame.lineno, frame.colno, frame.line) == (2, 4, "y = (2")
    assert "^" in error.traceback


async def test_nothing_of_a_cell_that_does_not_compile_runs(shared: pyrepl3.Session) -> None:
    result = await run(shared, "print('never')\nx = = 2")
    assert (result.stdout, result.mode) == ("", "unknown")


async def test_the_same_cell_again_has_the_same_file_name_and_its_own_lines(shared: pyrepl3.Session) -> None:
    first, second = await failure(shared, "\n1/0"), await failure(shared, "\n1/0")
    assert first.frames[0].filename == second.frames[0].filename
    other = await run(shared, "\n\n1/0")
    assert cell_lines(other) == [3]


async def test_errors_do_not_pile_up(shared: pyrepl3.Session) -> None:
    await shared.execute("class Big:\n    def __init__(self): self.data = bytearray(5_000_000)")
    before = (await shared.ping()).rss
    for _ in range(30):
        await run(shared, "def f():\n    big = Big()\n    1/0\nf()")
    assert (await shared.ping()).rss - before < 40_000_000
    assert await works(shared)


async def test_a_trace_function_of_the_codes_is_there_in_the_next_cell(session: pyrepl3.Session) -> None:
    """The worker takes it off for itself, and gives it back."""
    await session.execute("import sys\ndef trace(*a): return None\nsys.settrace(trace)")
    assert await value(session, "sys.gettrace() is trace") is True
    await session.execute("sys.settrace(None)")
    assert await value(session, "sys.gettrace() is None") is True


async def test_an_error_in_a_thread_shows_none_of_our_lines(shared: pyrepl3.Session) -> None:
    fails = "def fails():\n    1 / 0\n"
    thread = f"import threading\n{fails}t = threading.Thread(target=fails); t.start(); t.join()"
    stderr = (await run(shared, thread)).stderr
    assert "line 3, in fails" in stderr
    assert "pyrepl3_worker" not in stderr
    pool = (
        f"from concurrent.futures import ThreadPoolExecutor\nimport traceback\n{fails}"
        "with ThreadPoolExecutor(1) as pool:\n    pool.submit(int).result()\n"
        "    error = pool.submit(fails).exception()\n''.join(traceback.format_exception(error))"
    )
    text = await value(shared, pool)
    assert "line 4, in fails" in text
    assert "pyrepl3_worker" not in text


DEEP = "+".join(["1"] * 1500)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(DEEP, 1500, id="an expression"),
        pytest.param(f"x = 'é'; {DEEP}  # a comment", 1500, id="after another on its line"),
        pytest.param(f"x = 'é'\r\nx = 2\n{DEEP}", 1500, id="after other lines"),
        pytest.param(f"x = 'é'; {DEEP} ;", None, id="before a semicolon"),
        pytest.param(f"(0 +\n{DEEP})", 1500, id="over two lines"),
        pytest.param(f"y = {DEEP}", 1500, id="assigned"),
        pytest.param(f"a, *b = [{DEEP}, 2]", [1500, [2]], id="assigned to several"),
        pytest.param(f"y: int = {DEEP}", 1500, id="annotated"),
        pytest.param(f"y = {DEEP}\ny + 1", 1501, id="used"),
        pytest.param(f"import asyncio\nawait asyncio.sleep(0, {DEEP})", 1500, id="awaited"),
        pytest.param(f"def f():\n    return {DEEP}\nf()", 1500, id="in a function"),
        pytest.param("x = 7\nif x < 0: pass\n" + "".join(f"elif x == -{n}: pass\n" for n in range(1500)) + "else: x = 8\nx", 8, id="elif"),
        pytest.param("class A:\n    def f(self): return self\n(A()" + ".f()" * 900 + ").__class__.__name__", "A", id="a chain of calls"),
    ],
)  # fmt: skip
async def test_what_the_interpreter_compiles_runs_however_deep_it_nests(
    shared: pyrepl3.Session, code: str, expected: object
) -> None:
    assert await value(shared, code) == expected
    assert (await run(shared, code, result_mode="none")).value is None


@pytest.mark.parametrize(
    ("before", "column"), [("", 0), ("x = 'é'; ", 10), ("\n", 0), ("x = 1\r\nx = 'é'; ", 10)], ids=repr
)
async def test_deep_code_is_shown_where_it_stands(shared: pyrepl3.Session, before: str, column: int) -> None:
    error = await failure(shared, f"{before}1/0 + {DEEP}")
    (frame,) = error.frames
    lines = f"{before}1/0".splitlines()
    assert (frame.lineno, frame.colno, frame.end_colno) == (len(lines), column, column + 3)
    assert frame.line.startswith(lines[-1])


SLOW_CAUSE = """
class Slow(Exception):
    def __str__(self):
        print("describing", flush=True)
        while True:
            pass
"""


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("missing", "name 'missing' is not defined"),
        ("{}['key']", "'key'"),
        ("open('/there/is/none')", "[Errno 2] No such file or directory: '/there/is/none'"),
        ("b'\\xff'.decode()", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("import there_is_none", "No module named 'there_is_none'"),
    ],
)
async def test_a_cancel_while_an_error_is_described_leaves_its_text(
    shared: pyrepl3.Session, raised: str, message: str
) -> None:
    code = f"{SLOW_CAUSE}\ntry:\n    raise Slow\nexcept Slow:\n    {raised}"
    execution = shared.start(code)
    async for event in execution:
        if isinstance(event, pyrepl3.Output) and "describing" in event.data:
            await execution.cancel()
    with pytest.raises(pyrepl3.ExecutionFailed) as failed:
        await execution
    error = failed.value.error
    assert error.message == message
    assert error.traceback.endswith("[no traceback: it was stopped while being described]\n")


async def test_a_cancel_while_an_error_is_described_runs_none_of_its_code(shared: pyrepl3.Session) -> None:
    code = f"{SLOW_CAUSE}\nraise KeyError(Slow())"
    code = code.replace("__str__", "__repr__")
    execution = shared.start(code)
    async for event in execution:
        if isinstance(event, pyrepl3.Output) and "describing" in event.data:
            await execution.cancel()
    with pytest.raises(pyrepl3.ExecutionFailed) as failed:
        await execution
    assert (failed.value.error.type, failed.value.error.message) == (
        "KeyError",
        "the exception could not be described (it was stopped while being described)",
    )
