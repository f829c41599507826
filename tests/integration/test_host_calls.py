"""Host functions: called from the session's code in every way, run in the parent, answered.

A long file, for its tables of cells.
"""

import argparse
import os
import threading
import time
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch.process_tree import start_time
from pyrepl3_schemas.messages import Call, Input
from tests.helpers.real_sessions import outcome, quick, run, running, stop, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


class NotFoundHere(Exception):  # noqa: N818 - its name is what is tested
    """An exception type that the worker does not know."""


def add(a: int, b: int = 10) -> int:
    """Add two numbers."""
    return a + b


async def later(x: object) -> object:
    await anyio.lowlevel.checkpoint()
    return x


def boom(kind: str) -> None:
    raise {"value": ValueError("bad value"), "key": KeyError("k"), "mine": NotFoundHere("not here")}[kind]


def plain_add(a: int, b: int = 10) -> int:
    """Add two numbers, in a thread of the parent."""
    return a + b


def parse(arguments: list[str]) -> None:
    argparse.ArgumentParser("tool").parse_args(arguments)


class Bare(BaseException):
    """An error that is no `Exception`."""


def lonely() -> None:
    raise Bare("neither here nor there")


def thread_name() -> str:
    return threading.current_thread().name


def collect(*args: object, **kwargs: object) -> list[object]:
    return [list(args), kwargs]


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[pyrepl3.Session]:
    capabilities = {
        "add": add, "parse": parse, "lonely": lonely, "plain_add": plain_add, "later": later, "boom": boom, "thread_name": thread_name, "collect": collect,
        "unsendable": object, "nothing": lambda: None,
    }  # fmt: skip
    async with pyrepl3.open_session(config=quick(), capabilities=capabilities) as session:
        yield session


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("add(1, 2)", 3, id="from sync code"),
        pytest.param("add(1)", 11, id="the host's default"),
        pytest.param("add(b=1, a=2)", 3, id="by keyword"),
        pytest.param("await add(1, 2)", 3, id="awaited"),
        pytest.param("await later('x')", "x", id="an asynchronous one, awaited"),
        pytest.param("nothing()", None, id="nothing"),
        pytest.param("plain_add(1, 2)", 3, id="a plain one"),
        pytest.param("await plain_add(3)", 13, id="a plain one, awaited"),
        pytest.param("import asyncio\nawait asyncio.gather(*(asyncio.to_thread(plain_add, i) for i in range(5)))", [10, 11, 12, 13, 14], id="plain ones gathered"),
        pytest.param("collect(1, 'a', None, [1, {'k': b'b'}], x=2.5)", [[1, "a", None, [1, {"k": b"b"}]], {"x": 2.5}], id="all kinds of data"),
        pytest.param("collect((1, 2), {3}, x=0)", [[[1, 2], [3]], {"x": 0}], id="tuples and sets become lists"),
        pytest.param("[add(i, i) for i in range(3)]", [0, 2, 4], id="in a comprehension"),
        pytest.param("list(map(add, [1, 2], [3, 4]))", [4, 6], id="in map"),
        pytest.param("async def f(): return await add(1, 1)\nawait f()", 2, id="in a coroutine"),
        pytest.param("import asyncio\nawait asyncio.gather(*(later(i) for i in range(5)))", [0, 1, 2, 3, 4], id="gathered"),
        pytest.param("import asyncio\nasync with asyncio.TaskGroup() as tg: t = tg.create_task(later(4))\nt.result()", 4, id="as a task"),
        pytest.param("import asyncio\nawait asyncio.wait_for(later(6), 10)", 6, id="in wait_for"),
        pytest.param("import asyncio\nasync def f(): return await add(4, 4)\nasyncio.run(f())", 8, id="in asyncio.run"),
        pytest.param("import asyncio\nawait asyncio.to_thread(add, 5, 5)", 10, id="in to_thread"),
        pytest.param("import threading\ngot = []\nt = threading.Thread(target=lambda: got.append(add(6, 6)))\nt.start(); t.join()\ngot", [12], id="in a thread"),
        pytest.param("from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool: out = list(pool.map(add, range(8), range(8)))\nout", [0, 2, 4, 6, 8, 10, 12, 14], id="in a pool"),
        pytest.param("import time\ntime.sleep(0)\nadd(7, 7)", 14, id="in code that blocks"),
        pytest.param("def f():\n    return add(1, 1)\nf()", 2, id="in a function"),
        pytest.param("import functools\nfunctools.partial(add, 1)(1)", 2, id="in partial"),
        pytest.param("import inspect\n(add.__name__, add.__doc__, str(inspect.signature(add)))", ["add", "Add two numbers.", "(a: int, b: int = ...) -> int"], id="it can be asked about"),
    ],
)  # fmt: skip
async def test_called(host: pyrepl3.Session, code: str, expected: object) -> None:
    assert await value(host, code) == expected


async def test_plain_functions_run_in_a_thread_of_the_parent(host: pyrepl3.Session) -> None:
    assert await value(host, "thread_name()") != threading.current_thread().name


@pytest.mark.parametrize("call", ["boom({kind!r})", "await boom({kind!r})"])
@pytest.mark.parametrize(
    ("kind", "type_name", "message"),
    [("value", "ValueError", "bad value"), ("key", "KeyError", "k"), ("mine", "NotFoundHere", "not here")],
)
async def test_an_error_of_the_host_is_raised_in_the_code(
    host: pyrepl3.Session, call: str, kind: str, type_name: str, message: str
) -> None:
    result = await run(host, call.format(kind=kind))
    assert result.error is not None
    assert result.error.type == type_name
    assert message in result.error.message
    assert [frame.name for frame in result.error.frames] == ["<module>"]


@pytest.mark.parametrize(
    ("call", "type_name", "message"),
    [("parse(['--bad'])", "SystemExit", "2"), ("lonely()", "Bare", "neither here nor there")],
)
async def test_a_host_function_that_wants_to_end_the_program_only_fails(
    host: pyrepl3.Session, call: str, type_name: str, message: str
) -> None:
    for code in (call, f"await {call}"):
        result = await run(host, code)
        assert result.error is not None
        assert (result.error.type, result.error.message) == (type_name, message)
    caught = await value(host, f"try: {call}\nexcept Exception as e: caught = type(e).__name__\ncaught")
    assert caught == type_name
    assert await works(host)


async def test_the_code_can_catch_it(host: pyrepl3.Session) -> None:
    assert (
        await value(host, "try: boom('value')\nexcept ValueError as e: caught = str(e)\ncaught")
        == "bad value"
    )


@pytest.mark.parametrize("argument", ["object()", "lambda: 0", "'\\ud800'", "(1).__add__"])
async def test_what_cannot_cross_is_refused_at_once(host: pyrepl3.Session, argument: str) -> None:
    result = await run(host, f"collect({argument})")
    assert result.error is not None
    assert result.error.type == "TypeError"
    assert "collect() takes plain data" in result.error.message
    assert await works(host)


async def test_an_answer_that_cannot_cross_is_an_error(host: pyrepl3.Session) -> None:
    result = await run(host, "unsendable()")
    assert result.error is not None
    assert "CapabilityError" in result.error.type
    assert await works(host)


async def test_wrong_arguments_are_the_hosts_type_error(host: pyrepl3.Session) -> None:
    assert type_of(await run(host, "add()")) == "TypeError"


async def test_printed_text_comes_before_the_call(host: pyrepl3.Session) -> None:
    execution = host.start("print('one', end='')\nadd(1)\nprint('two')")
    kinds = ["call" if isinstance(event, Call) else getattr(event, "data", "") async for event in execution]
    assert "".join(kinds[: kinds.index("call")]) == "one"


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        pytest.param("add(1); add(2); await later(3)", ["add:1", "add:2", "later:1"], id="the main flow"),
        pytest.param("import asyncio\nasync def two(n):\n    await add(n)\n    await add(n)\nawait asyncio.gather(two(1), two(2))", ["add:1.1", "add:1.2", "add:2.1", "add:2.2"], id="two tasks that call twice"),
        pytest.param("import asyncio\nasync def inner(): await add(1)\nasync def outer(): await asyncio.create_task(inner())\nawait outer()\nawait asyncio.gather(outer())", ["add:1.1", "add:2.1.1"], id="nested"),
        pytest.param("import threading\nfor _ in range(2):\n    t = threading.Thread(target=add, args=(1,)); t.start(); t.join()\nadd(1)", ["add:1", "add:1.1", "add:2.1"], id="threads"),
    ],
)  # fmt: skip
async def test_ids_depend_on_the_codes_structure_alone(
    host: pyrepl3.Session, code: str, ids: list[str]
) -> None:
    for execution_id in ("run-a", "run-b"):
        execution = host.start(code, execution_id=f"{execution_id}-{abs(hash(code))}")
        seen = [event.call_id.partition(":")[2] async for event in execution if isinstance(event, Call)]
        assert sorted(seen) == ids


async def test_ids_are_the_same_whoever_finishes_first() -> None:
    order: list[int] = []
    gates = {1: anyio.Event(), 2: anyio.Event()}

    async def slow(n: int) -> int:
        await gates[n].wait()
        order.append(n)
        gates[3 - n].set()
        return n

    async with pyrepl3.open_session(config=quick(), capabilities={"slow": slow}) as session:
        collected: list[list[str]] = []
        for first in (1, 2):
            gates[1], gates[2] = anyio.Event(), anyio.Event()
            gates[first].set()
            execution = session.start(
                "import asyncio\nasync def work(n):\n    await slow(n)\n    return await slow(n)\n"
                "await asyncio.gather(work(1), work(2))",
                execution_id=f"first-{first}",
            )
            calls = [event async for event in execution if isinstance(event, Call)]
            collected.append(sorted(call.call_id.partition(":")[2] for call in calls))
    assert collected[0] == collected[1] == ["slow:1.1", "slow:1.2", "slow:2.1", "slow:2.2"]
    assert order[0] == 1


async def test_gathered_calls_run_at_once() -> None:
    meeting = anyio.Event()
    arrived: list[int] = []

    async def meet(n: int) -> int:
        arrived.append(n)
        if len(arrived) == 3:
            meeting.set()
        await meeting.wait()
        return n

    async with pyrepl3.open_session(config=quick(), capabilities={"meet": meet}) as session:
        with anyio.fail_after(10):
            code = "import asyncio\nawait asyncio.gather(meet(1), meet(2), meet(3))"
            assert await value(session, code) == [1, 2, 3]


async def test_a_cancelled_execution_cancels_its_calls() -> None:
    started, cancelled = anyio.Event(), anyio.Event()

    async def hang() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with pyrepl3.open_session(config=quick(), capabilities={"hang": hang}) as session:
        execution = session.start("await hang()")
        with anyio.fail_after(10):
            await started.wait()
            await stop(execution)
            await cancelled.wait()
        assert await works(session)


async def test_a_call_that_the_code_gives_up_does_not_stop_it() -> None:
    async def hang() -> None:
        await anyio.sleep_forever()

    async with pyrepl3.open_session(config=quick(), capabilities={"hang": hang}) as session:
        code = "import asyncio\ntry: await asyncio.wait_for(hang(), 0.01)\nexcept TimeoutError: gave_up = True\ngave_up"
        assert await value(session, code) is True
        assert await works(session)


async def test_a_thousand_calls(host: pyrepl3.Session) -> None:
    assert await value(host, "sum(add(i, 0) for i in range(1000))") == 499_500
    assert (
        await value(host, "import asyncio\nsum(await asyncio.gather(*(later(i) for i in range(500))))")
        == 124_750
    )


async def test_a_call_of_10_mb_each_way(host: pyrepl3.Session) -> None:
    assert await value(host, "len((await later('x' * 10_000_000)))") == 10_000_000


async def test_the_host_may_use_the_session_while_it_is_called() -> None:
    """A tool that looks at the session that calls it."""
    async with anyio.create_task_group() as group:
        sessions: list[pyrepl3.Session] = []

        async def look() -> str | None:
            return (await sessions[0].ping()).current_execution

        async with pyrepl3.open_session(config=quick(), capabilities={"look": look}) as session:
            sessions.append(session)
            with anyio.fail_after(10):
                result = await session.execute("await look()", execution_id="looker")
            assert result.value == "looker"
        group.cancel_scope.cancel()


async def test_names_can_be_rebound_by_the_code(host: pyrepl3.Session) -> None:
    async with pyrepl3.open_session(config=quick(), capabilities={"f": add}) as session:
        assert await value(session, "g = f\nf = 5\n(g(1), f)") == [11, 5]


LATE_TASK = """
import asyncio
opened, begun = asyncio.Event(), []
async def work():
    first = await add(1)
    begun.append(1)
    await opened.wait()
    return [first, await add(2)]
work = asyncio.create_task(work())
while not begun: await asyncio.sleep(0)
"""
LATE_THREAD = """
import threading
import time
opened, outcome = threading.Event(), []
def work():
    outcome.append(add(1))
    opened.wait()
    outcome.append(add(2))
work = threading.Thread(target=work)
work.start()
while not outcome: pass
"""


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        pytest.param(LATE_TASK, "opened.set()\n[*await work, await add(3)]", id="a task"),
        pytest.param(LATE_THREAD, "opened.set(); work.join()\n[*outcome, add(3)]", id="a thread"),
    ],
)  # fmt: skip
async def test_what_a_cell_has_left_behind_calls_in_its_name(begin: str, end: str) -> None:
    """Under an id that is the same each time."""
    seen: list[list[str]] = []
    for _ in range(2):
        ids: list[str] = []

        def count(a: int, context: pyrepl3.CallContext, ids: list[str] = ids) -> int:
            ids.append(context.call_id)
            return a + 10

        async with pyrepl3.open_session(config=quick(), capabilities={"add": count}) as session:
            await session.execute(begin, execution_id="first")
            result = await session.execute(end, execution_id="second")
            assert result.value == [11, 12, 13]
        seen.append(ids)
    assert seen[0] == seen[1] == ["first:add:1.1", "first:add:1.2", "second:add:1"]


POOL = "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"


@pytest.mark.parametrize(
    ("before", "code", "expected"),
    [
        pytest.param("import asyncio", "await asyncio.get_running_loop().run_in_executor(None, lambda: add(1))", 11, id="the loop's own pool"),
        pytest.param(POOL, "pool.submit(add, 1).result()", 11, id="a pool that is kept"),
        pytest.param(POOL, "list(pool.map(add, [1]))", [11], id="map"),
        pytest.param(POOL, "pool.submit(input).result()", "a line", id="input"),
        pytest.param(POOL, "pool.submit(print, 'printed').result()", None, id="print"),
    ],
)  # fmt: skip
async def test_work_given_to_a_pool_is_the_cells_that_gives_it_whoever_started_the_thread(
    before: str, code: str, expected: object
) -> None:
    async with pyrepl3.open_session(
        config=quick(), capabilities={"add": add}, on_input=lambda _: "a line"
    ) as session:
        await session.execute(before)
        places: list[str] = []
        for _ in range(3):
            execution = session.start(code)
            asked = [event async for event in execution if isinstance(event, Call | Input)]
            places += [(e.call_id if isinstance(e, Call) else e.input_id).rpartition(":")[2] for e in asked]
            result = await outcome(execution)
            assert (result.value, result.error) == (expected, None)
            assert result.stdout == ("printed\n" if "print" in code else "")
        assert places == ([] if "print" in code else ["1.1"] * 3)


async def test_each_piece_of_work_has_its_place_whichever_thread_takes_it(host: pyrepl3.Session) -> None:
    async def places(execution: pyrepl3.Execution) -> list[str]:
        return sorted([e.call_id.rpartition(":")[2] async for e in execution if isinstance(e, Call)])

    await host.execute("from concurrent.futures import ThreadPoolExecutor\nthree = ThreadPoolExecutor(3)")
    for _ in range(3):
        execution = host.start("list(three.map(add, range(4)))\nthree.submit(lambda: add(add(1))).result()")
        assert await places(execution) == ["1.1", "2.1", "3.1", "4.1", "5.1", "5.2"]
    assert await value(host, "three.shutdown(); three._max_workers") == 3


async def test_unknown_names_are_ordinary_name_errors(host: pyrepl3.Session) -> None:
    assert type_of(await run(host, "not_offered()")) == "NameError"


async def test_a_call_waits_while_the_code_is_interrupted(host: pyrepl3.Session) -> None:
    execution = host.start("while True: add(1)")
    await running(host, execution)
    assert (await stop(execution, "interrupt")).error is not None
    assert (await outcome(execution)).error is not None
    assert await works(host)


async def test_what_a_worker_asked_for_just_before_its_end_is_not_begun() -> None:
    """Thousands of calls may lie in its pipe: nothing waits for them, and each would begin a task."""
    begun: list[int] = []

    async def note(number: int, _: str) -> None:
        begun.append(number)
        await anyio.sleep_forever()

    code = """
import asyncio, os
asked = [asyncio.create_task(note(number, "x" * 200)) for number in range(900)]
for _ in range(3): await asyncio.sleep(0)
os.write(written, b'x')
os._exit(0)
"""
    read, write = os.pipe()
    path = f"/proc/{os.getpid()}/fd/{write}"
    async with pyrepl3.open_session(config=quick(), recovery="none", capabilities={"note": note}) as session:
        await session.execute(f"import os\nwritten = os.open({path!r}, os.O_WRONLY)")
        pid = session.worker.pid
        running_cell = session.start(code)
        await anyio.lowlevel.checkpoint()
        # This loop stands still until the worker has ended: all that it has sent lies in the pipe by then.
        os.read(read, 1)
        while start_time(pid) is not None:
            time.sleep(0.001)  # noqa: ASYNC251 - this is how it stands still
        with pytest.raises(pyrepl3.WorkerDied):
            await running_cell
    os.close(read)
    os.close(write)
    assert len(begun) < 900
