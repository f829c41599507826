"""`input()` and its kin: asked from anywhere, answered, refused, ended."""

from collections.abc import AsyncIterator

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import Input
from tests.helpers.real_sessions import quick, run, stop, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


class Asked:
    """Answers from a list, and keeps what was asked."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.answers: list[str | None] = []

    async def __call__(self, prompt: str) -> str | None:
        self.prompts.append(str(prompt))
        return self.answers.pop(0) if self.answers else None


@pytest.fixture(scope="module")
async def talk() -> AsyncIterator[tuple[pyrepl3.Session, Asked]]:
    asked = Asked()
    async with pyrepl3.open_session(config=quick(), on_input=asked) as session:
        yield session, asked


@pytest.mark.parametrize(
    ("code", "answers", "prompts", "expected"),
    [
        pytest.param("input()", ["a line"], [""], "a line", id="input"),
        pytest.param("input('who? ')", ["ann"], ["who? "], "ann", id="with a prompt"),
        pytest.param("input(42)", ["x"], ["42"], "x", id="a prompt that is no text"),
        pytest.param("[input('a'), input('b')]", ["1", "2"], ["a", "b"], ["1", "2"], id="twice"),
        pytest.param("int(input('n? ')) + 1", ["41"], ["n? "], 42, id="as a number"),
        pytest.param("input()", [""], [""], "", id="an empty line"),
        pytest.param("input()", ["ö 🎉"], [""], "ö 🎉", id="beyond ASCII"),
        pytest.param("import asyncio\nasyncio\ninput('loop? ')", ["y"], ["loop? "], "y", id="on the loop's thread"),
        pytest.param("import asyncio\nawait asyncio.sleep(0)\ninput('after await? ')", ["y"], ["after await? "], "y", id="after an await"),
        pytest.param("await input('awaited? ')", ["y"], ["awaited? "], "y", id="awaited"),
        pytest.param("async def ask(): return input('inside? ')\nawait ask()", ["y"], ["inside? "], "y", id="plain in a coroutine"),
        pytest.param("async def ask(): return await input('inside? ')\nawait ask()", ["y"], ["inside? "], "y", id="awaited in a coroutine"),
        pytest.param("import asyncio\nasync def ask(): return await input('r? ')\nasyncio.run(ask())", ["y"], ["r? "], "y", id="in asyncio.run"),
        pytest.param("import asyncio\nawait asyncio.to_thread(input, 'thread? ')", ["y"], ["thread? "], "y", id="in to_thread"),
        pytest.param("import threading\ngot = []\nt = threading.Thread(target=lambda: got.append(input('t? ')))\nt.start(); t.join()\ngot", ["y"], ["t? "], ["y"], id="in a thread that is joined"),
        pytest.param("def gen():\n    while (line := input('> ')) != 'q': yield line\nlist(gen())", ["a", "b", "q"], ["> "] * 3, ["a", "b"], id="in a generator"),
        pytest.param("[input(str(i)) for i in range(3)]", ["a", "b", "c"], ["0", "1", "2"], ["a", "b", "c"], id="in a comprehension"),
        pytest.param("class A:\n    name = input('class? ')\nA.name", ["y"], ["class? "], "y", id="in a class body"),
        pytest.param("sorted(['b', 'a'], key=lambda x: input(x))", ["2", "1"], ["b", "a"], ["a", "b"], id="in a callback"),
        pytest.param("import sys\nsys.stdin.readline()", ["line"], [""], "line\n", id="readline"),
        pytest.param("import sys\n[line for line in sys.stdin]", ["a", "b", None], [""] * 3, ["a\n", "b\n"], id="lines of stdin"),
        pytest.param("import sys\nsys.stdin.read()", ["a", "b", None], [""] * 3, "a\nb\n", id="read"),
        pytest.param("import sys\n[sys.stdin.read(2), sys.stdin.readline()]", ["abc"], [""], ["ab", "c\n"], id="read some"),
        pytest.param("import sys\nsys.stdin.readlines()", ["a", None], [""] * 2, ["a\n"], id="readlines"),
        pytest.param("import sys\nnext(sys.stdin)", ["first"], [""], "first\n", id="next"),
        pytest.param("import fileinput\nnext(iter(fileinput.input('-')))", ["f"], [""], "f\n", id="fileinput"),
        pytest.param("import io, sys\nsys.stdin = io.StringIO('a\\nb\\n')\ntry: lines = [input('no '), input()]\nfinally: sys.stdin = sys.__stdin__\n[*lines, input()]", ["c"], [""], ["a", "b", "c"], id="the code's own stdin first"),
        pytest.param("import io, sys\nsys.stdin = io.StringIO()\ntry: input()\nexcept EOFError as e: said = str(e)\nfinally: sys.stdin = sys.__stdin__\nsaid", [], [], "EOF when reading a line", id="the end of the code's own stdin"),
        pytest.param("import contextlib, io, pdb, sys\nsys.stdin, out = io.StringIO('p 6 * 7\\nc\\n'), io.StringIO()\ntry:\n    with contextlib.redirect_stdout(out): pdb.set_trace()\n    done = 1\nfinally: sys.stdin = sys.__stdin__\n'(Pdb) 42' in out.getvalue()", [], [], True, id="pdb reads the code's own stdin"),
        pytest.param("import getpass\ngetpass.getpass()", ["secret"], ["Password: "], "secret", id="getpass"),
        pytest.param("from getpass import getpass\ngetpass('Key: ')", ["k"], ["Key: "], "k", id="getpass with a prompt"),
    ],
)  # fmt: skip
async def test_answered(
    talk: tuple[pyrepl3.Session, Asked],
    code: str,
    answers: list[str | None],
    prompts: list[str],
    expected: object,
) -> None:
    session, asked = talk
    asked.prompts, asked.answers = [], list(answers)
    assert await value(session, code) == expected
    assert asked.prompts == prompts


@pytest.mark.parametrize("code", ["input('x')", "await input('x')", "import asyncio\nasyncio\ninput('x')"])
async def test_the_end_of_input(talk: tuple[pyrepl3.Session, Asked], code: str) -> None:
    session, asked = talk
    asked.answers = [None]
    result = await run(session, code)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("EOFError", "EOF when reading a line")


async def test_nobody_to_ask(shared: pyrepl3.Session) -> None:
    assert type_of(await run(shared, "input('anybody? ')")) == "EOFError"
    assert await value(shared, "import sys\nsys.stdin.read()") == ""


async def test_an_execution_may_bring_its_own_answers(shared: pyrepl3.Session) -> None:
    assert await value_with(shared, "input('name? ')", str.upper) == "NAME? "
    assert type_of(await run(shared, "input()")) == "EOFError"


async def value_with(session: pyrepl3.Session, code: str, answer: object) -> object:
    return (await session.execute(code, on_input=answer)).value  # pyright: ignore[reportArgumentType]


async def test_an_asynchronous_answer(shared: pyrepl3.Session) -> None:
    async def answer(prompt: str) -> str:
        return f"to {prompt}"

    assert await value_with(shared, "input('you')", answer) == "to you"


async def test_an_answer_that_fails_is_an_error_of_the_code(shared: pyrepl3.Session) -> None:
    def answer(prompt: str) -> str:
        raise ValueError("no terminal here")

    result = await run(shared, "input()", on_input=answer)
    assert result.error is not None
    assert "no terminal here" in result.error.message
    assert await works(shared)


async def test_printed_text_comes_before_the_question(shared: pyrepl3.Session) -> None:
    execution = shared.start(
        "import os\nprint('one', end='')\nos.write(1, b' two')\nname = input('? ')\nprint('three')",
        on_input=lambda _: "x",
    )
    order = [
        type(event).__name__ if isinstance(event, Input) else getattr(event, "data", "")
        async for event in execution
    ]
    assert "".join(order[: order.index("Input")]) == "one two"
    assert (await execution.result()).stdout == "one twothree\n"


async def test_ids_count_from_one(shared: pyrepl3.Session) -> None:
    execution = shared.start("[input(), input()]", on_input=lambda _: "x", execution_id="counted")
    ids = [event.input_id async for event in execution if isinstance(event, Input)]
    assert ids == ["counted:input:1", "counted:input:2"]


async def test_a_question_is_withdrawn_with_its_execution() -> None:
    asked, withdrawn = anyio.Event(), anyio.Event()

    async def never(prompt: str) -> str:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            withdrawn.set()
        raise AssertionError

    async with pyrepl3.open_session(config=quick(), on_input=never) as session:
        execution = session.start("input('forever? ')")
        with anyio.fail_after(10):
            await asked.wait()
            await stop(execution)
            await withdrawn.wait()
        assert await works(session)


async def test_other_tasks_go_on_while_an_awaited_input_waits(shared: pyrepl3.Session) -> None:
    may_answer = anyio.Event()

    async def answer(prompt: str) -> str:
        await may_answer.wait()
        return "answered"

    def listen(output: object) -> None:
        may_answer.set()

    result = await run(
        shared,
        "import asyncio\nasync def ask(): return await input('? ')\n"
        "async def other():\n    await asyncio.sleep(0)\n    print('meanwhile')\n"
        "(await asyncio.gather(ask(), other()))[0]",
        on_input=answer,
        on_output=listen,
    )
    assert result.value == "answered"
