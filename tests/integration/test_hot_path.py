"""The fast paths for small cells and many short prints keep what the slow ones promise."""

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import outcome, run

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

BURST = "for i in range(3000): print('x', end='')\n"
"""Enough prints in a row to take the fast path."""

TURNS = """
import asyncio
turns = 0
async def count():
    global turns
    while True:
        turns += 1
        await asyncio.sleep(0)
"""


async def test_cells_in_a_row_each_find_what_the_one_before_broke_mended(session: pyrepl3.Session) -> None:
    """The second waits in the worker already when the first ends."""
    breaking = session.start(
        "import os, sys, signal\nfor fd in range(3): os.close(fd)\nsys.setrecursionlimit(60)"
    )
    deleting = session.start(
        "del __builtins__.len; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])"
    )
    looking = session.start("[os.fstat(fd).st_mode > 0 for fd in range(3)], sys.getrecursionlimit() > 200")
    counting = session.start("len('abc'), signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()")
    for execution in (breaking, deleting):
        await execution.result()
    assert (await looking.result()).value == [[True, True, True], True]
    assert (await counting.result()).value == [3, True]


async def test_a_cell_that_comes_again_has_its_builtins(session: pyrepl3.Session) -> None:
    """Its compiled code is kept, and so must not be bound to what was there when it ran first."""
    assert (await session.execute("abs(-3)")).value == 3
    await session.execute("__builtins__ = {}")
    assert (await session.execute("abs(-3)")).value == 3
    await session.execute("import builtins; original = abs; builtins.abs = lambda number: 'mine'")
    assert (await session.execute("abs(-3)")).value == "mine"
    await session.execute("builtins.abs = original")
    assert (await session.execute("abs(-3)")).value == 3


@pytest.mark.parametrize(
    "value",
    [
        "1",
        "True",
        "-1.5",
        "0.1 + 0.2",
        "float('nan')",
        "float('inf')",
        "2**63 - 1",
        "2**64",
        "-2**63",
        "10**300",
        "1e308",
    ],
)
async def test_numbers_have_their_own_repr(session: pyrepl3.Session, value: str) -> None:
    result = await session.execute(value)
    assert result.repr == repr(eval(value))
    assert result.type_name == type(eval(value)).__name__


async def test_streams_keep_their_order_within_a_burst(session: pyrepl3.Session) -> None:
    code = "import sys\n" + BURST + "print('e', file=sys.stderr, end='')\n" + BURST
    execution = session.start(code)
    parts = [(event.stream, event.data) async for event in execution if isinstance(event, pyrepl3.Output)]
    where = next(at for at, (stream, _) in enumerate(parts) if stream == "stderr")
    assert "".join(data for _, data in parts[:where]) == "x" * 3000
    assert "".join(data for _, data in parts[where + 1 :]) == "x" * 3000


async def test_a_kept_write_writes_for_the_cell_that_calls_it(session: pyrepl3.Session) -> None:
    """`write = sys.stdout.write` is a well known way to print faster; it outlives its cell."""
    first = await session.execute("import sys\n" + BURST + "write = sys.stdout.write\nwrite('first\\n')")
    second = await session.execute("write('second\\n')")
    assert first.stdout == "x" * 3000 + "first\n"
    assert second.stdout == "second\n"
    assert second.value == 7


async def test_a_burst_of_two_tasks_and_a_thread_is_all_there(session: pyrepl3.Session) -> None:
    code = (
        "import asyncio, threading\n"
        "async def talk(text):\n"
        "    for _ in range(2000):\n"
        "        print(text, end='')\n"
        "        if _ % 50 == 0: await asyncio.sleep(0)\n"
        "thread = threading.Thread(target=lambda: [print('c', end='') for _ in range(20000)])\n"
        "thread.start()\n"
        "await asyncio.gather(talk('a'), talk('b'))\n"
        "thread.join()"
    )
    text = (await session.execute(code)).stdout
    assert {letter: text.count(letter) for letter in "abc"} == {"a": 2000, "b": 2000, "c": 20000}
    assert len(text) == 24000


CLOSE_WHAT_LISTENS = """
import os
for name in os.listdir('/proc/self/fd'):
    fd = int(name)
    try:
        mine = os.path.sameopenfile(fd, 1) or os.path.sameopenfile(fd, 2)
        flags = int(open(f'/proc/self/fdinfo/{fd}').read().split()[3], 8)
    except OSError:
        continue
    if mine and not flags & os.O_WRONLY:
        os.close(fd)
"""


@pytest.mark.parametrize("broken", ["", CLOSE_WHAT_LISTENS], ids=["as it is", "nothing tells what waits"])
async def test_what_is_written_past_python_stays_with_its_cell_in_a_row(
    session: pyrepl3.Session, broken: str
) -> None:
    await run(session, f"{broken}\nraw = open(1, 'wb', buffering=0, closefd=False)")
    first = session.start("input()\nraw.write(b'0')", on_input=lambda _: "")
    others = [session.start(f"raw.write(b'{n}')") for n in range(1, 10)]
    written = [(await outcome(execution)).stdout for execution in [first, *others]]
    assert written == [str(n) for n in range(10)]


async def test_a_burst_is_seen_before_a_long_computation(session: pyrepl3.Session) -> None:
    execution = session.start(BURST + "print('now')\nwhile True: pass")
    async for event in execution:
        if isinstance(event, pyrepl3.Output) and event.data.endswith("now\n"):
            await execution.cancel()
    with pytest.raises(pyrepl3.ExecutionCancelled):
        await execution.result()


async def test_a_forked_child_does_not_print_what_its_parent_has_begun(session: pyrepl3.Session) -> None:
    code = (
        "import os\n" + BURST + "pid = os.fork()\n"
        "if pid == 0:\n    print('child')\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nprint('parent')"
    )
    assert (await session.execute(code)).stdout == "x" * 3000 + "child\nparent\n"


async def test_what_is_no_text_is_refused_in_a_burst(session: pyrepl3.Session) -> None:
    code = BURST + "import sys\ntry: sys.stdout.write(1)\nexcept TypeError as error: print(error)"
    assert (await session.execute(code)).stdout == "x" * 3000 + "write() argument must be str, not int\n"


async def test_background_tasks_have_a_turn_between_cells_that_wait_in_a_row(
    session: pyrepl3.Session,
) -> None:
    """The first asks and is answered behind the other cells, so that they wait already when it ends."""
    await run(session, TURNS)
    first = session.start("input()\ntask = asyncio.create_task(count()); None", on_input=lambda _: "")
    others = [session.start(code) for code in [*["turns"] * 5, "task.cancel(); turns"]]
    values = [(await outcome(execution)).value for execution in [first, *others]]
    assert values == [None, 1, 2, 3, 4, 5, 6]


async def test_they_have_it_too_behind_a_cell_that_awaits(session: pyrepl3.Session) -> None:
    await run(session, TURNS)
    cells = ["task = asyncio.create_task(count())\nawait asyncio.sleep(0.01)", *["turns"] * 5]
    executions = [session.start(code) for code in cells]
    values = [(await outcome(execution)).value for execution in executions][1:]
    assert sorted(set(values)) == values
