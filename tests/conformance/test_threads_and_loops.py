"""Threads and loops, as tables: what code that blocks finds, and what goes on beside it. On real workers.

Each row is cells that run one after the other, and the value of the last one.
"""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import CancelReason, Output
from pyrepl3_worker.config import ExecutorConfig
from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.namespace import NamespaceManager
from tests.helpers.real_sessions import (
    PATIENCE,
    outcome,
    quick,
    run,
    running,
    seen,
    stop,
    type_of,
    value,
    works,
)

pytestmark = pytest.mark.anyio


class Row(NamedTuple):
    """Cells, and what the last one gives."""

    name: str
    cells: tuple[str, ...]
    expected: Any


def named(rows: list[Row]) -> list[object]:
    return [pytest.param(row, id=row.name) for row in rows]


async def check(session: pyrepl3.Session, row: Row) -> None:
    *before, last = row.cells
    for cell in before:
        result = await run(session, cell)
        assert result.error is None, result.error.traceback
    result = await run(session, last)
    assert result.error is None, result.error.traceback
    assert result.value == row.expected


@pytest.fixture(scope="module")
async def module_sessions() -> AsyncIterator[dict[str, pyrepl3.Session]]:
    async with (
        pyrepl3.open_session(config=quick(), capabilities=OFFERED, on_input=answer) as auto,
        pyrepl3.open_session(
            config=quick(blocking="thread"), capabilities=OFFERED, on_input=answer
        ) as thread,
    ):
        yield {"auto": auto, "thread": thread}


@pytest.fixture
async def session(module_sessions: dict[str, pyrepl3.Session]) -> pyrepl3.Session:
    return module_sessions["auto"]


def add(a: int, b: int) -> int:
    return a + b


async def aadd(a: int, b: int) -> int:
    return a + b


OFFERED = {"add": add, "aadd": aadd}


async def answer(prompt: str) -> str:
    return prompt.upper()


# --- one thread ---------------------------------------------------------------------------------------

ON_LOOP = "threading.current_thread() is threading.main_thread()"
BLOCKS = "import time\ntime.sleep(0)\n"

ONE_THREAD = [
    Row("sqlite3 through a function of an earlier cell", ("import sqlite3\ndb = sqlite3.connect(':memory:')", "def rows(): return db.execute('select 1').fetchall()", "rows()"), [[1]]),
    Row("sqlite3 after an await", ("import sqlite3, asyncio\ndb = sqlite3.connect(':memory:')", "await asyncio.sleep(0)\ndb.execute('select 2').fetchone()"), [2]),
    Row("sqlite3 from a cell that awaits to one that blocks", ("import sqlite3, asyncio\nawait asyncio.sleep(0)\ndb = sqlite3.connect(':memory:')", "db.execute('select 3').fetchone()"), [3]),
    Row("sqlite3 through a method", ("import sqlite3\ndb = sqlite3.connect(':memory:')\nclass Repo:\n    def all(self): return db.execute('select 4').fetchall()", "Repo().all()"), [[4]]),
    Row("a thread-local", ("import threading\nlocal = threading.local()\nlocal.x = 1", BLOCKS + "local.x += 1", "local.x"), 2),
    Row("a thread-local set by a cell that blocks", ("import threading\nlocal = threading.local()", BLOCKS + "local.x = 5", "import asyncio\nawait asyncio.sleep(0, local.x)"), 5),
    Row("an RLock held over cells", ("import threading\nlock = threading.RLock()\nlock.acquire() and None", BLOCKS + "lock.acquire()", "lock.release(); lock.release(); 'released'"), "released"),
    Row("a Condition held over cells", ("import threading\nchanged = threading.Condition()\nchanged.acquire() and None", BLOCKS + "changed.notify_all()", "changed.release()\n'ok'"), "ok"),
    Row("signal.signal in a helper", ("import signal, time\ndef limited(s):\n    signal.signal(signal.SIGALRM, lambda *a: 1 / 0)\n    signal.setitimer(signal.ITIMER_REAL, s)\n    try: time.sleep(5)\n    except ZeroDivisionError: return 'rang'\n    finally: signal.setitimer(signal.ITIMER_REAL, 0)", "time.sleep(0); limited(0.01)"), "rang"),
    Row("signal.set_wakeup_fd", ("import signal", BLOCKS + "signal.set_wakeup_fd(signal.set_wakeup_fd(-1))\n'ok'"), "ok"),
    Row("blocking cells and others share a thread", ("import threading, time", f"time.sleep(0); blocked = {ON_LOOP}", f"blocked, {ON_LOOP}"), [True, True]),
    Row("the mode is what it was", ("import time", "time.sleep(0)\n1"), 1),
    Row("the decimal context", ("import decimal\ndecimal.getcontext().prec = 7", BLOCKS + "decimal.getcontext().prec"), 7),
    Row("a context variable", ("import contextvars\nv = contextvars.ContextVar('v')\nv.set(1) and None", BLOCKS + "v.set(v.get() + 1)", "v.get()"), 2),
    Row("a loop runs in a cell that blocks", ("import asyncio, time", "time.sleep(0)\ntask = asyncio.create_task(asyncio.sleep(0, 'slept'))", "await task"), "slept"),
    Row("a cell awaits after it blocked", ("import asyncio, time", "time.sleep(0.001)\nawait asyncio.sleep(0, 'awaited')"), "awaited"),
    Row("input() in a cell that blocks", (BLOCKS + "input('name')",), "NAME"),
    Row("a host call in a cell that blocks", (BLOCKS + "add(1, 2)",), 3),
    Row("a host call in a thread that a cell waits for", ("import threading, time\ngot = []\nt = threading.Thread(target=lambda: got.append(add(3, 4)))\nt.start(); time.sleep(0); t.join()\ngot",), [7]),
    Row("a task that is done is nothing to serve", ("import asyncio, threading, time\ntask = asyncio.create_task(asyncio.sleep(0))\nawait task", f"time.sleep(0); {ON_LOOP}"), True),
    Row("a timer that was cancelled is nothing to serve", ("import asyncio, threading, time\nasyncio.get_running_loop().call_later(60, print).cancel()", f"time.sleep(0); {ON_LOOP}"), True),
]  # fmt: skip


@pytest.mark.parametrize("row", named(ONE_THREAD))
async def test_code_finds_one_thread(session: pyrepl3.Session, row: Row) -> None:
    await check(session, row)


# --- beside a blocking cell ---------------------------------------------------------------------------

TICKS = "import asyncio, threading, time\nticks = 0\nasync def tick():\n    global ticks\n    while True:\n        ticks += 1\n        await asyncio.sleep(0.001)\ntask = asyncio.create_task(tick())"
WAIT_FOR = "\nimport time\ndef wait_for(met):\n    end = time.monotonic() + 5\n    while not met() and time.monotonic() < end: time.sleep(0.001)\n    return met()\n"

BESIDE = [
    Row("a task", (TICKS + WAIT_FOR, "time.sleep(0); seen = ticks; went_on = wait_for(lambda: ticks > seen + 3)", "task.cancel(); went_on"), True),
    Row("a task, and the thread is another", (TICKS, f"time.sleep(0); here = {ON_LOOP}", "task.cancel(); here"), False),
    Row("a server", (WAIT_FOR + "import asyncio, socket\nasync def serve(r, w):\n    w.write((await r.readline()).upper()); await w.drain(); w.close()\nserver = await asyncio.start_server(serve, '127.0.0.1', 0)\nport = server.sockets[0].getsockname()[1]", "with socket.create_connection(('127.0.0.1', port)) as c:\n    c.sendall(b'hey\\n'); said = c.makefile().readline()", "server.close(); said"), "HEY\n"),
    Row("a reader", (WAIT_FOR + "import asyncio, os\nr, w = os.pipe()\ngot = []\nasyncio.get_running_loop().add_reader(r, lambda: got.append(os.read(r, 9)))\nNone", "time.sleep(0); os.write(w, b'x'); came = wait_for(lambda: got)", "asyncio.get_running_loop().remove_reader(r); os.close(r); os.close(w); got"), [b"x"]),
    Row("a timer", (WAIT_FOR + "import asyncio\nrang = []\nasyncio.get_running_loop().call_later(0.02, rang.append, 1) and None", "time.sleep(0); came = wait_for(lambda: rang)", "rang"), [1]),
    Row("a subprocess that is awaited later", (WAIT_FOR + "import asyncio, sys, threading\nchild = await asyncio.create_subprocess_exec(sys.executable, '-c', 'input()', stdin=-1)", f"time.sleep(0); here = {ON_LOOP}", "child.stdin.write(b'x\\n'); code = await child.wait(); (here, code)"), [False, 0]),
    Row("run_coroutine_threadsafe from the blocking cell", (TICKS + "\nloop = asyncio.get_running_loop()\ndef there(): return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 'there'), loop).result(5)", "time.sleep(0); r = there()", "task.cancel(); r"), "there"),
    Row("asyncio.run in the blocking cell", (TICKS, "time.sleep(0)\ndef f(): return asyncio.run(asyncio.sleep(0, 'ran'))\nr = f()", "task.cancel(); r"), "ran"),
    Row("input() on the thread", (TICKS, "time.sleep(0); r = input('x')", "task.cancel(); r"), "X"),
    Row("a host call on the thread", (TICKS, "time.sleep(0); r = add(5, 6)", "task.cancel(); r"), 11),
    Row("the next blocking cell is back, once nothing is left to serve", (TICKS, "time.sleep(0)", "task.cancel(); await asyncio.sleep(0)", f"time.sleep(0); {ON_LOOP}"), True),
]  # fmt: skip


@pytest.mark.parametrize("row", named(BESIDE))
async def test_what_goes_on_beside_a_blocking_cell(session: pyrepl3.Session, row: Row) -> None:
    await check(session, row)


# --- errors that tell of two threads ------------------------------------------------------------------

AFFINITY = [
    ("sqlite3", "import sqlite3\nx = sqlite3.connect(':memory:')", "x.execute('select 1')", "ProgrammingError"),
    ("signal.signal", "import signal\ndef x(): signal.signal(signal.SIGUSR1, signal.SIG_DFL)", "time.sleep(0); x()", "ValueError"),
    ("an RLock", "import threading\nx = threading.RLock()\nx.acquire() and None", "time.sleep(0); x.release()", "RuntimeError"),
    ("a thread-local", "import threading\nx = threading.local()\nx.y = 1", "time.sleep(0); x.y", "AttributeError"),
    ("a running loop", "import asyncio\ndef x(): return asyncio.get_running_loop()", "time.sleep(0); x()", "RuntimeError"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "code", "error"), [row[1:] for row in AFFINITY], ids=[row[0] for row in AFFINITY])  # fmt: skip
async def test_an_error_of_a_wrong_thread_names_both_and_what_to_do(
    session: pyrepl3.Session, before: str, code: str, error: str
) -> None:
    await session.execute(before)
    await session.execute(TICKS)
    result = await run(session, code)
    await session.execute("task.cancel()")
    assert result.error is not None
    assert result.error.type == error
    [note] = [note for note in result.error.notes if "thread for blocking code" in note]
    assert "'pyrepl3-blocking'" in note
    assert "'MainThread'" in note
    assert "a task of the code's" in note
    assert 'ExecutorConfig(blocking="loop")' in note
    assert note in result.error.traceback


async def test_what_was_made_on_the_thread_and_is_used_on_the_loops_has_a_note_too(
    module_sessions: dict[str, pyrepl3.Session],
) -> None:
    session = module_sessions["thread"]
    await session.execute(
        "import sqlite3\nmade = sqlite3.connect(':memory:')\ndef use(): return made.execute('select 1')"
    )
    result = await run(session, "use()")
    assert result.error is not None
    assert "an earlier cell blocked and ran on 'pyrepl3-blocking'" in result.error.notes[0]
    own = await run(session, "'x' + 1")
    assert own.error is not None
    assert not own.error.notes


# --- the three settings -------------------------------------------------------------------------------


async def test_thread_always_takes_the_thread(module_sessions: dict[str, pyrepl3.Session]) -> None:
    """It is what the first edition did."""
    session = module_sessions["thread"]
    assert await value(session, f"import threading, time\ntime.sleep(0); {ON_LOOP}") is False
    assert await value(session, ON_LOOP) is True


async def test_loop_never_takes_the_thread() -> None:
    async with pyrepl3.open_session(config=quick(blocking="loop")) as session:
        await session.execute(TICKS)
        assert await value(session, f"time.sleep(0); {ON_LOOP}") is True


@pytest.mark.parametrize(("blocking", "on_loop"), [("auto", False), ("thread", False), ("loop", True)])
async def test_an_executor_by_itself_takes_the_thread(blocking: Any, on_loop: bool) -> None:
    """The loop is the caller's, and never held."""
    executor = AsyncExecutor(NamespaceManager(), "alone", config=ExecutorConfig(blocking=blocking))
    assert await executor.execute(f"import threading, time\ntime.sleep(0); {ON_LOOP}") is on_loop
    executor.close()


# --- while the loop's thread is held ------------------------------------------------------------------

HELD = {
    "a sleep": "import time\nprint('ready')\ntime.sleep(60)",
    "a socket": "import socket\npair = socket.socketpair()\nprint('ready')\npair[0].recv(1)",
    "a subprocess": "import subprocess\nprint('ready')\nsubprocess.run(['sleep', '60'])",
    "a FIFO": "import os, tempfile\npath = tempfile.mktemp()\nos.mkfifo(path)\nprint('ready')\ntry: open(path)\nfinally: os.unlink(path)",
    "a queue": "import queue, time\nprint('ready')\ntime.sleep(0); queue.Queue().get()",
    "Python code": "import time\ntime.sleep(0)\nprint('ready')\nwhile True: pass",
}  # fmt: skip


@pytest.mark.parametrize("code", HELD.values(), ids=HELD.keys())
async def test_everything_is_answered_and_stopped_while_a_cell_blocks(
    session: pyrepl3.Session, code: str
) -> None:
    await session.execute("kept = 5")
    execution = session.start(code)
    await seen(execution)
    with anyio.fail_after(PATIENCE):
        assert (await session.ping()).current_execution == execution.execution_id
        assert (await session.variables())["kept"].repr == "5"
        assert "kept" in (await session.complete("kep")).matches
        assert (await session.inspect("kept")).found
    result = await stop(execution, "interrupt")
    assert type_of(result) == "KeyboardInterrupt"
    assert await works(session)
    assert session.worker.incarnation == 1


async def answered_late(session: pyrepl3.Session) -> None:
    """Ask until the answer is late: the call that holds the thread has begun then."""
    while True:
        await session.variables(timeout=0.05)


async def test_a_call_that_looks_at_no_signal_holds_up_the_answers_and_the_error_says_so(
    session: pyrepl3.Session,
) -> None:
    execution = session.start("import time\ntime.sleep(0)\nprint('ready')\nsum(range(20_000_000))\nkept = 6")
    await seen(execution)
    with pytest.raises(pyrepl3.WorkerUnresponsive, match=rf"0\.05 s.*{execution.execution_id}"):
        await answered_late(session)
    assert (await outcome(execution)).error is None
    assert (await session.variables())["kept"].repr == "6"


async def test_the_output_of_a_cell_that_blocks_streams(session: pyrepl3.Session) -> None:
    execution = session.start("import time\nfor i in range(3):\n    print(i)\n    input('go on')")
    text = ""
    async for event in execution:
        if isinstance(event, Output):
            text += event.data
    assert text == "0\n1\n2\n"
    execution = session.start("import time\ntime.sleep(0)\nprint('early', end='')\ntime.sleep(60)")
    await seen(execution, "early")
    assert type_of(await stop(execution)) == "CancelledError"


async def test_a_slow_reader_slows_a_cell_that_blocks_and_nothing_is_lost(session: pyrepl3.Session) -> None:
    execution = session.start("import time\ntime.sleep(0)\nfor i in range(20_000): print(f'{i:0>90}')")
    size = 0
    async for event in execution:
        if isinstance(event, Output):
            size += len(event.data)
            await anyio.lowlevel.checkpoint()
    assert size == 20_000 * 91


async def test_a_checkpoint_waits_for_a_cell_that_blocks(session: pyrepl3.Session) -> None:
    await session.execute("gate = []")
    execution = session.start("import time\nprint('ready')\ninput('gate'); gate.append(1)")
    await seen(execution)
    saved = await session.checkpoint()
    assert (await outcome(execution)).error is None
    assert "gate" not in {lost.name for lost in saved.unsaved}


# --- loops of the code's own --------------------------------------------------------------------------

TESTS = """
import asyncio, io, unittest
def ran(case):
    result = unittest.TextTestRunner(io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    return [result.testsRun, len(result.failures), len(result.errors)]
"""
LOOPS = [
    Row("asyncio.run", ("import asyncio", "asyncio.run(asyncio.sleep(0, 1))"), 1),
    Row("asyncio.run beside an await", ("import asyncio", "await asyncio.sleep(0)\n[asyncio.run(asyncio.sleep(0, 1)), await asyncio.sleep(0, 2)]"), [1, 2]),
    Row("asyncio.runners.run", ("from asyncio.runners import run\nimport asyncio", "run(asyncio.sleep(0, 1))"), 1),
    Row("asyncio.run with debug and a loop factory", ("import asyncio\nasync def f(): return asyncio.get_running_loop().get_debug()", "asyncio.run(f(), debug=True, loop_factory=asyncio.SelectorEventLoop)"), True),
    Row("asyncio.run inside of asyncio.run is refused, as anywhere", ("import asyncio\nasync def f():\n    c = asyncio.sleep(0)\n    try: asyncio.run(c)\n    except RuntimeError as e: return str(e)\n    finally: c.close()", "asyncio.run(f())"), "asyncio.run() cannot be called from a running event loop"),
    Row("a Runner, twice", ("import asyncio", "with asyncio.Runner() as r: x = [r.run(asyncio.sleep(0, 1)), r.run(asyncio.sleep(0, 2))]\nx"), [1, 2]),
    Row("a Runner over cells", ("import asyncio\nr = asyncio.Runner()\nq = asyncio.Queue()", "r.run(q.put(5))", "x = r.run(q.get()); r.close(); x"), 5),
    Row("a Runner's get_loop", ("import asyncio", "with asyncio.Runner() as r: x = r.get_loop().run_until_complete(asyncio.sleep(0, 3))\nx"), 3),
    Row("a new loop's run_until_complete", ("import asyncio", "loop = asyncio.new_event_loop()\nx = loop.run_until_complete(asyncio.sleep(0, 1)); loop.close(); x"), 1),
    Row("set_event_loop, and the loop goes on in the next cell", ("import asyncio\nloop = asyncio.new_event_loop()\nasyncio.set_event_loop(loop)\nt = loop.create_task(asyncio.sleep(0, 4))", "x = loop.run_until_complete(t); loop.close(); x"), 4),
    Row("a new loop's run_forever", ("import asyncio", "loop = asyncio.new_event_loop(); loop.call_soon(loop.stop); loop.run_forever(); loop.close(); 'stopped'"), "stopped"),
    Row("the session's loop", ("import asyncio", "asyncio.get_event_loop().run_until_complete(asyncio.sleep(0.001, 1))"), 1),
    Row("the session's loop beside an await", ("import asyncio", "await asyncio.sleep(0)\nx = asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 1)); x"), 1),
    Row("the session's loop, and a task of an earlier cell", ("import asyncio\nt = asyncio.create_task(asyncio.sleep(0.001, 6))", "asyncio.get_event_loop().run_until_complete(t)"), 6),
    Row("the session's loop raises what the coroutine raises", ("import asyncio\nasync def f(): raise LookupError('no')", "try: asyncio.get_event_loop().run_until_complete(f())\nexcept LookupError as e: x = str(e)\nx"), "no"),
    Row("the session's loop run for ever, and stopped", ("import asyncio\nloop = asyncio.get_event_loop()", "loop.call_later(0.001, loop.stop); loop.run_forever(); 'stopped'"), "stopped"),
    Row("the session's loop stopped too early", ("import asyncio\nloop = asyncio.get_event_loop()", "loop.call_soon(loop.stop)\nf = loop.create_future()\ntry: loop.run_until_complete(f)\nexcept RuntimeError as e: x = str(e)\nx"), "Event loop stopped before Future completed."),
    Row("tasks go on while the session's loop is run", (TICKS + "\nloop = asyncio.get_event_loop()", "seen = ticks; loop.run_until_complete(asyncio.sleep(0.02)); went_on = ticks > seen + 2; task.cancel(); went_on"), True),
    Row("a server and its client on a loop of one's own", ("import asyncio\nasync def serve(r, w):\n    w.write((await r.readline()).upper()); await w.drain(); w.close()\nasync def main():\n    async with await asyncio.start_server(serve, '127.0.0.1', 0) as server:\n        r, w = await asyncio.open_connection(*server.sockets[0].getsockname())\n        w.write(b'hey\\n'); line = await r.readline(); w.close()\n        return line.decode()", "asyncio.run(main())"), "HEY\n"),
    Row("a subprocess on a loop of one's own", ("import asyncio, sys\nasync def main():\n    child = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(7)', stdout=-1)\n    return (await child.communicate())[0].decode()", "asyncio.run(main())"), "7\n"),
    Row("to_thread, TaskGroup and timeout", ("import asyncio\nasync def main():\n    async with asyncio.timeout(5), asyncio.TaskGroup() as g:\n        t = g.create_task(asyncio.to_thread(abs, -3))\n    return t.result()", "asyncio.run(main())"), 3),
    Row("IsolatedAsyncioTestCase", ("import asyncio, io, unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def asyncSetUp(self): self.x = await asyncio.sleep(0, 1)\n    async def test_a(self): self.assertEqual(self.x, 1)\n    async def test_b(self): self.assertEqual(self.x, 2)", "r = unittest.TextTestRunner(io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T))\n[r.testsRun, len(r.failures), len(r.errors)]"), [2, 1, 0]),
    Row("no loop runs in tests that unittest runs", (TESTS + "class T(unittest.TestCase):\n    def test_a(self):\n        with self.assertRaisesRegex(RuntimeError, 'no running'): asyncio.get_running_loop()\n        loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop)\n        self.assertIs(asyncio.get_event_loop(), loop); asyncio.set_event_loop(None); loop.close()\n        with self.assertRaisesRegex(RuntimeError, 'no current event loop'): asyncio.get_event_loop()", "[*ran(T), asyncio.get_event_loop_policy().get_event_loop() is asyncio.get_running_loop()]"), [1, 0, 0, True]),
    Row("input() and host calls in tests that unittest runs", (TESTS + "class T(unittest.TestCase):\n    def test_a(self): self.assertEqual([input('a'), add(1, 2)], ['A', 3])\n    def test_b(self): self.assertEqual(asyncio.run(self.awaits()), 3)\n    async def awaits(self): return await aadd(1, 2)", "ran(T)"), [2, 0, 0]),
    Row("no loop runs in tests that pytest runs", ("import os, pathlib, tempfile, pytest\nos.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'", "with tempfile.TemporaryDirectory() as d:\n    p = pathlib.Path(d, 'test_it.py'); p.write_text('import asyncio\\ndef test_a():\\n    assert asyncio._get_running_loop() is None\\n')\n    x = int(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'anyio', '--rootdir', d, str(p)]))\nx"), 0),
    Row("a policy of the code's never gets the session's loop", ("import asyncio\nclass Policy(asyncio.DefaultEventLoopPolicy):\n    given = []\n    def set_event_loop(self, loop):\n        Policy.given.append(loop); super().set_event_loop(loop)", "asyncio.set_event_loop_policy(Policy())\nasyncio.run(asyncio.sleep(0)); asyncio.set_event_loop_policy(None)\n[asyncio.get_running_loop() in Policy.given, Policy.given[-1]]"), [False, None]),
    Row("anyio.run", ("import anyio\nasync def f():\n    await anyio.sleep(0)\n    return 'anyio'", "anyio.run(f)"), "anyio"),
    Row("anyio.run beside an await", ("import anyio, asyncio\nasync def f():\n    await anyio.sleep(0)\n    return 'anyio'", "await asyncio.sleep(0)\nx = anyio.run(f); x"), "anyio"),
    Row("asyncio.run in a thread of the code's", ("import asyncio, threading\ngot = []\nt = threading.Thread(target=lambda: got.append(asyncio.run(asyncio.sleep(0, 5))))", "t.start(); t.join(); got"), [5]),
    Row("input() on a loop of one's own", ("import asyncio\nasync def f(): return [input('a'), await input('b')]", "asyncio.run(f())"), ["A", "B"]),
    Row("host calls on a loop of one's own", ("import asyncio\nasync def f(): return await asyncio.gather(aadd(1, 2), aadd(3, 4))", "asyncio.run(f())"), [3, 7]),
    Row("host calls on the session's loop", ("import asyncio\nasync def f(): return await asyncio.gather(aadd(1, 2), aadd(3, 4))", "asyncio.get_event_loop().run_until_complete(f())"), [3, 7]),
    Row("the running loop is the session's again", ("import asyncio\nloop = asyncio.get_running_loop()", "asyncio.run(asyncio.sleep(0))\nasyncio.get_running_loop() is loop"), True),
    Row("the current task is the cell's again", ("import asyncio", "await asyncio.sleep(0)\nbefore = asyncio.current_task(); asyncio.run(asyncio.sleep(0)); before is asyncio.current_task()"), True),
    Row("no task of another loop is current inside", ("import asyncio\nasync def f(): return len(asyncio.all_tasks())", "await asyncio.sleep(0)\nx = asyncio.run(f()); x"), 1),
    Row("a task factory of the code's own stays", ("import asyncio\nmade = []\ndef factory(loop, coro, **options):\n    made.append(1); return asyncio.Task(coro, loop=loop, **options)\ndef new():\n    loop = asyncio.new_event_loop(); loop.set_task_factory(factory); return loop", "asyncio.run(asyncio.sleep(0), loop_factory=new)\nmade[:1]"), [1]),
    Row("a loop has no task factory after its run", ("import asyncio\nloop = asyncio.new_event_loop()", "loop.run_until_complete(asyncio.sleep(0)); x = loop.get_task_factory(); loop.close(); x"), None),
]  # fmt: skip


@pytest.mark.parametrize("row", named(LOOPS))
async def test_loops_of_the_codes_own_run(session: pyrepl3.Session, row: Row) -> None:
    await check(session, row)
    assert await value(session, "import asyncio\nawait asyncio.sleep(0, 'the loop runs')") == "the loop runs"


ENDLESS = {
    "asyncio.run": "asyncio.run(asyncio.sleep(60))",
    "asyncio.run beside an await": "await asyncio.sleep(0)\nasyncio.run(asyncio.sleep(60))",
    "a Runner": "with asyncio.Runner() as r: r.run(asyncio.sleep(60))",
    "a new loop": "loop = asyncio.new_event_loop(); loop.run_until_complete(asyncio.sleep(60))",
    "a new loop for ever": "asyncio.new_event_loop().run_forever()",
    "the session's loop": "asyncio.get_event_loop().run_until_complete(asyncio.sleep(60))",
    "the session's loop beside an await": "await asyncio.sleep(0)\nasyncio.get_event_loop().run_until_complete(asyncio.sleep(60))",
    "the session's loop for ever": "asyncio.get_event_loop().run_forever()",
    "the session's loop, held": "async def f():\n    while True: abs(0)\nasyncio.get_event_loop().run_until_complete(f())",
    "the session's loop, busy": "async def f():\n    while True: await asyncio.sleep(0)\nasyncio.get_event_loop().run_until_complete(f())",
    "anyio.run": "import anyio\nanyio.run(anyio.sleep, 60)",
    "uvloop": "uvloop.run(asyncio.sleep(60))",
    "uvloop beside an await": "await asyncio.sleep(0)\nuvloop.run(asyncio.sleep(60))",
    "uvloop, held": "async def f():\n    while True: abs(0)\nuvloop.run(f())",
    "uvloop, holding callback": "def f():\n    while True: abs(0)\nl = uvloop.new_event_loop(); l.call_soon(f); l.run_forever()",
    "trio": "trio.run(trio.sleep_forever)",
    "trio beside an await": "await asyncio.sleep(0)\ntrio.run(trio.sleep_forever)",
    "trio, held": "async def f():\n    while True: abs(0)\ntrio.run(f)",
    "trio, busy": "async def f():\n    while True: await trio.lowlevel.checkpoint()\ntrio.run(f)",
    "uvloop, run_until_complete": "uvloop.new_event_loop().run_until_complete(asyncio.sleep(60))",
}  # fmt: skip


@pytest.mark.parametrize("reason", ["cancelled", "interrupt", "timeout"])
@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS.keys())
async def test_loops_of_the_codes_own_are_stopped(
    session: pyrepl3.Session, code: str, reason: CancelReason
) -> None:
    for library in ("uvloop", "trio"):
        if library in code:
            pytest.importorskip(library, reason=f"{library} is of the group notebooks")
            await session.execute(f"import {library}")  # takes longer than the timeout
    code = "import asyncio\n" + code
    if reason == "timeout":
        result = await run(session, code, timeout=0.05)
    else:
        execution = session.start(code)
        await running(session, execution)
        result = await stop(execution, reason)
    seen_by_code = {
        "cancelled": "CancelledError",
        "interrupt": "KeyboardInterrupt",
        "timeout": "TimeoutError",
    }
    assert type_of(result) == seen_by_code[reason]
    assert await value(session, "import asyncio\nawait asyncio.sleep(0, 1)") == 1
    assert session.worker.incarnation == 1


UVLOOP = [
    Row("uvloop.run", ("import asyncio, uvloop\nasync def f(): return type(asyncio.get_running_loop()).__module__", "uvloop.run(f())"), "uvloop"),
    Row("a loop of uvloop", ("import asyncio, uvloop", "l = uvloop.new_event_loop(); x = l.run_until_complete(asyncio.sleep(0, 2)); l.close(); x"), 2),
    Row("uvloop as a Runner's loop", ("import asyncio, uvloop", "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as r: x = r.run(asyncio.sleep(0, 3))\nx"), 3),
    Row("uvloop raises what the coroutine raises", ("import asyncio, uvloop\nasync def f(): raise LookupError('no')", "try: uvloop.run(f())\nexcept LookupError as e: x = str(e)\nx"), "no"),
    Row("a host call on uvloop", ("import uvloop\nasync def f(): return await aadd(1, 2)", "uvloop.run(f())"), 3),
]  # fmt: skip


@pytest.mark.parametrize("row", named(UVLOOP))
async def test_uvloop(session: pyrepl3.Session, row: Row) -> None:
    pytest.importorskip("uvloop", reason="uvloop is of the group notebooks")
    await check(session, row)


TRIO = [
    Row("trio.run", ("import trio\nasync def f():\n    async with trio.open_nursery() as n: n.start_soon(trio.sleep, 0.001)\n    return 'trio'", "trio.run(f)"), "trio"),
    Row("trio.run beside an await", ("import asyncio, trio\nasync def f(): return 1", "await asyncio.sleep(0)\nx = trio.run(f); x"), 1),
    Row("trio.to_thread", ("import trio\nasync def f(): return await trio.to_thread.run_sync(abs, -3)", "trio.run(f)"), 3),
    Row("input() and host calls in trio", ("import trio\nasync def f(): return [input('a'), add(1, 2)]", "trio.run(f)"), ["A", 3]),
    Row("trio as the guest of the session's loop", ("import asyncio, trio\nasync def guest():\n    await trio.sleep(0.001)\n    return 'guest'\nasync def host():\n    loop = asyncio.get_running_loop(); done = loop.create_future()\n    trio.lowlevel.start_guest_run(guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda o: done.set_result(o.unwrap()))\n    return await done", "await host()"), "guest"),
]  # fmt: skip


@pytest.mark.parametrize("row", named(TRIO))
async def test_trio(session: pyrepl3.Session, row: Row) -> None:
    pytest.importorskip("trio", reason="trio is of the group notebooks")
    await check(session, row)


async def test_trio_cleans_up_what_it_runs_when_it_is_stopped(session: pyrepl3.Session) -> None:
    pytest.importorskip("trio", reason="trio is of the group notebooks")
    await session.execute(
        "import trio\nlog = []\nasync def one():\n    try: await trio.sleep_forever()\n    finally: log.append('one')\n"
        "async def both():\n    async with trio.open_nursery() as n:\n        n.start_soon(one); n.start_soon(one)\n"
    )
    result = await run(session, "trio.run(both)", timeout=0.1)
    assert type_of(result) == "TimeoutError"
    assert await value(session, "trio.run(trio.sleep, 0); log") == ["one", "one"]


# --- processes ----------------------------------------------------------------------------------------

PROCESSES = """
import dataclasses, enum, multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
K = 10
@dataclasses.dataclass
class Point:
    x: int
    def moved(self): return Point(self.x + K)
class Color(enum.Enum):
    RED = 1
class Refused(Exception): pass
def helper(x): return x * K
def f(x): return helper(x) + 1
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
def move(p): return p.moved(), isinstance(p, Point), Color.RED
def refuse(x): raise Refused(x)
def put(q, n): q.put(Point(helper(n)))
counter = None
def init(c):
    global counter
    counter = c
def count(x):
    with counter.get_lock(): counter.value += x
generator = (i for i in range(3))
next(generator)
def use_generator(_): return next(generator)
"""
METHODS = ("fork", "spawn", "forkserver")
IN_CHILDREN = [
    Row("Pool.map", ("def run(ctx): return pool.map(f, range(3))", "run(ctx)"), [1, 11, 21]),
    Row("functions that call one another", ("def run(ctx): return pool.map(even, [2, 3])", "run(ctx)"), [True, False]),
    Row("instances, their class and an enum, both ways", ("def run(ctx):\n    (moved, same, red), = pool.map(move, [Point(1)])\n    return [moved == Point(11), same, red is Color.RED]", "run(ctx)"), [True, True, True]),
    Row("a lambda and a local function", ("def run(ctx):\n    y = 5\n    def local(x): return x + y + K\n    return [pool.apply(lambda x: x + K, (1,)), pool.apply(local, (1,))]", "run(ctx)"), [11, 16]),
    Row("an exception of the code's own", ("def run(ctx):\n    try: pool.map(refuse, [3])\n    except Refused as e: return e.args", "run(ctx)"), [3]),
    Row("an initializer's global stays", ("def run(ctx):\n    c = ctx.Value('i', 0)\n    with ctx.Pool(1, init, (c,)) as p: p.map(count, range(5))\n    return c.value", "run(ctx)"), 10),
    Row("Process and Queue", ("def run(ctx):\n    q = ctx.Queue(); p = ctx.Process(target=put, args=(q, 4)); p.start(); r = q.get(); p.join(); return r.x", "run(ctx)"), 40),
    Row("a subclass of Process", ("def run(ctx):\n    class P(ctx.Process):\n        def __init__(self, q): super().__init__(); self.q = q\n        def run(self): self.q.put(helper(7))\n    q = ctx.Queue(); p = P(q); p.start(); r = q.get(); p.join(); return r", "run(ctx)"), 70),
    Row("ProcessPoolExecutor", ("def run(ctx):\n    with ProcessPoolExecutor(1, mp_context=ctx) as e: return list(e.map(f, range(3)))", "run(ctx)"), [1, 11, 21]),
    Row("a function that was defined anew", ("def g(x): return 1\ndef run(ctx):\n    global g\n    first = pool.map(g, [0])\n    def g(x): return 2\n    return first + pool.map(g, [0])", "run(ctx)"), [1, 2]),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
async def test_other_processes_have_the_sessions_definitions(session: pyrepl3.Session, method: str) -> None:
    await session.execute(PROCESSES + f"ctx = mp.get_context({method!r}); pool = ctx.Pool(1)")
    for row in IN_CHILDREN:
        await check(session, row)
    await session.execute("pool.terminate(); pool.join()")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
async def test_a_global_that_cannot_be_sent_says_so_where_it_is_used(
    session: pyrepl3.Session, method: str
) -> None:
    """A child that is forked has it."""
    await session.execute(PROCESSES)
    result = await run(session, f"with mp.get_context({method!r}).Pool(1) as p: p.map(use_generator, [1])")
    assert result.error is not None
    assert "the global 'generator' was not sent to this process" in result.error.message
    assert "pass what it holds as an argument" in result.error.message
    assert await value(
        session, "with mp.get_context('fork').Pool(1) as p: x = p.map(use_generator, [1])\nx"
    ) == [1]


async def test_what_comes_back_to_the_session_is_its_own(session: pyrepl3.Session) -> None:
    await session.execute(PROCESSES)
    assert await value(
        session, "q = mp.Queue(); q.put(f); q.put(Point); [q.get() is f, q.get() is Point]"
    ) == [True, True]


async def test_a_pool_that_waits_is_stopped(session: pyrepl3.Session) -> None:
    await session.execute("import multiprocessing as mp, time\ndef forever(x): time.sleep(60)")
    execution = session.start(
        "with mp.get_context('spawn').Pool(1) as p:\n    print('ready')\n    p.map(forever, [1])"
    )
    await seen(execution)
    assert type_of(await stop(execution, "interrupt")) == "KeyboardInterrupt"
    assert await works(session)
    assert session.worker.incarnation == 1


@pytest.mark.parametrize(
    "backend", [pytest.param("loky", marks=pytest.mark.long), "multiprocessing", "threading"]
)
async def test_joblib(session: pyrepl3.Session, backend: str) -> None:
    pytest.importorskip("joblib", reason="joblib is of the group notebooks")
    await session.execute(PROCESSES)
    code = f"import joblib\njoblib.Parallel(2, backend={backend!r})(joblib.delayed(f)(i) for i in range(3))"
    assert await value(session, code) == [1, 11, 21]


# --- profilers ----------------------------------------------------------------------------------------

PROFILERS = [
    Row("cProfile", ("import cProfile, pstats\ndef work(): return sum(range(10))", "p = cProfile.Profile(); p.runcall(work)\n[(k[0].startswith('<cell'), k[2]) for k in pstats.Stats(p).stats if k[2] == 'work']"), [[True, "work"]]),
    Row("sys.settrace", ("import sys\nlines = []\ndef trace(frame, event, arg):\n    if frame.f_code.co_name == 'work': lines.append((event, frame.f_lineno))\n    return trace\ndef work():\n    x = 1\n    return x", "sys.settrace(trace); work(); sys.settrace(None); lines"), [["call", 6], ["line", 7], ["line", 8], ["return", 8]]),
    Row("sys.monitoring", ("import sys\nlines = []\nm = sys.monitoring\ndef work():\n    x = 1\n    return x", "m.use_tool_id(5, 'mine'); m.register_callback(5, m.events.LINE, lambda c, n: lines.append(n)); m.set_local_events(5, work.__code__, m.events.LINE); work(); m.free_tool_id(5); lines"), [5, 6]),
    Row("linecache and inspect", ("import inspect, linecache\ndef work():\n    return 1", "[linecache.getline(work.__code__.co_filename, 3), inspect.getsource(work)]"), ["    return 1", "def work():\n    return 1"]),
]  # fmt: skip


@pytest.mark.parametrize("row", named(PROFILERS))
async def test_profilers_see_cells(session: pyrepl3.Session, row: Row) -> None:
    await check(session, row)
