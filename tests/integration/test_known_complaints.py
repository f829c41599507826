"""What people ask of the tools they have now, or complain about: a test for each row that concerns the core.

The numbers are those of a list of complaints (each a recurring theme of public issue trackers). What a row
means in full is tested where it belongs; here stands the case that people describe.

It is long because the list is.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import Call, Display, Output
from tests.helpers.hanging_code import HANG, STUBBORN
from tests.helpers.processes import ended
from tests.helpers.real_sessions import (
    lives,
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

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

PROMPT = 1.0
"""Seconds that people accept; it takes a millisecond, but the machine may be busy."""


@pytest.fixture
async def answering() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick(), on_input=lambda prompt: f"re: {prompt}") as session:
        yield session


async def test_row_3_a_dead_worker_says_why(session: pyrepl3.Session) -> None:
    """Row 3: "kernel died" without a reason. Here: the signal by name, and what was running."""
    with pytest.raises(pyrepl3.WorkerDied, match="SIGSEGV") as death:
        await session.execute("import ctypes; ctypes.string_at(0)", execution_id="crasher")
    assert death.value.running == ("crasher",)
    assert "string_at" in death.value.stderr


async def test_row_5_a_busy_session_restarts(session: pyrepl3.Session) -> None:
    """Row 5: a kernel that is busy, or hung, cannot be restarted."""
    for code in ("while True: pass", HANG, STUBBORN[1].code):
        # Flushed here: what runs next may hold the GIL, and no other thread could do it then.
        execution = session.start(f"print('ready', flush=True)\n{code}")
        await seen(execution)
        with anyio.fail_after(10):
            await session.restart()
        assert await works(session)
        with pytest.raises(pyrepl3.WorkerDied):
            await execution.result()


async def test_row_6_a_top_level_await_is_interrupted_promptly(shared: pyrepl3.Session) -> None:
    """Row 6: an await at the top level is not interrupted until it ends by itself."""
    execution = shared.start("import asyncio\nprint('ready')\nawait asyncio.sleep(600)")
    await seen(execution)
    begin = time.monotonic()
    assert type_of(await stop(execution, "interrupt")) == "KeyboardInterrupt"
    assert time.monotonic() - begin < PROMPT


async def test_row_7_a_blocking_call_inside_gather_is_interrupted(shared: pyrepl3.Session) -> None:
    """Row 7: a sync call inside gather or a task ignores the interrupt."""
    execution = shared.start(
        "import asyncio, time\nasync def f():\n    print('ready')\n    time.sleep(600)\n"
        "await asyncio.gather(f(), f(), asyncio.sleep(600))"
    )
    await seen(execution)
    begin = time.monotonic()
    assert type_of(await stop(execution, "interrupt")) == "KeyboardInterrupt"
    assert time.monotonic() - begin < PROMPT
    assert await works(shared)


async def test_row_8_an_interrupt_keeps_the_namespace_and_the_worker(shared: pyrepl3.Session) -> None:
    """Row 8: the interrupt kills the kernel."""
    await shared.execute("precious = {'hours': 3}")
    for _ in range(5):
        execution = shared.start("while True: pass")
        await running(shared, execution)
        await stop(execution, "interrupt")
    assert await value(shared, "precious") == {"hours": 3}


async def test_row_9_input_can_be_interrupted_and_asks_again() -> None:
    """Row 9: `input()` cannot be interrupted, and afterwards the prompt is lost."""
    asked = anyio.Event()

    async def slow_then_quick(prompt: str) -> str:
        if not asked.is_set():
            asked.set()
            await anyio.sleep_forever()
        return f"re: {prompt}"

    async with pyrepl3.open_session(config=quick(), on_input=slow_then_quick) as session:
        execution = session.start("input('first? ')")
        with anyio.fail_after(10):
            await asked.wait()
        assert type_of(await stop(execution, "interrupt")) == "KeyboardInterrupt"
        assert await value(session, "input('second? ')") == "re: second? "


async def test_row_10_an_interrupt_takes_the_subprocesses_along(shared: pyrepl3.Session) -> None:
    """Row 10: each interrupted run leaves its four sampler chains running."""
    execution = shared.start(
        "import subprocess\nchains = [subprocess.Popen(['sleep', '600']) for _ in range(4)]\n"
        "print('ready')\nfor chain in chains: chain.wait()"
    )
    await seen(execution)
    await stop(execution, "interrupt")
    for pid in await value(shared, "[chain.pid for chain in chains]"):
        assert await ended(pid)


async def test_row_11_a_second_interrupt_is_possible_and_goes_further(session: pyrepl3.Session) -> None:
    """Row 11: a handler swallows the first interrupt, and there is no second."""
    execution = session.start(
        "import time\nswallowed = 0\nwhile True:\n    try:\n        print('ready')\n        time.sleep(600)\n"
        "    except BaseException: swallowed += 1"
    )
    await seen(execution)
    assert type_of(await stop(execution, "interrupt")) == "KeyboardInterrupt"
    assert await value(session, "swallowed") >= 1
    assert session.worker.incarnation == 1


async def test_row_12_code_that_takes_the_cpu_cannot_keep_the_interrupt_away() -> None:
    """Row 12: CPU-bound code starves the thread that would have sent the signal.

    Each time the handler lets go of the GIL, the spinning thread has it for 5 ms: hence the longer grace.
    """
    async with pyrepl3.open_session() as session:
        execution = session.start(
            "import threading\ndone = []\ndef spin():\n    while not done: pass\n"
            "threading.Thread(target=spin, daemon=True).start()\n"
            "try:\n    print('ready')\n    while True: abs(0)\nfinally: done.append(1)"
        )
        await seen(execution)
        begin = time.monotonic()
        assert type_of(await stop(execution, "interrupt")) == "KeyboardInterrupt"
        assert time.monotonic() - begin < PROMPT
        assert await value(session, "done") == [1]


async def test_row_13_output_of_threads_and_tasks_is_under_the_cell_that_started_them() -> None:
    """Row 13: output of threads and tasks shows up in the wrong cell, or nowhere."""
    heard: list[Output] = []
    async with pyrepl3.open_session(config=quick(), on_output=heard.append) as session:
        await session.execute(
            "import asyncio, threading\ngo = threading.Event()\ngo_task = asyncio.Event()\n"
            "def in_thread():\n    go.wait()\n    print('thread')\n"
            "async def in_task():\n    await go_task.wait()\n    print('task')\n"
            "thread = threading.Thread(target=in_thread); thread.start()\ntask = asyncio.create_task(in_task())",
            execution_id="starter",
        )
        second = await session.execute(
            "print('mine')\ngo.set(); thread.join()\ngo_task.set(); await task", execution_id="other"
        )
    assert second.stdout == "mine\n"
    texts = {
        execution_id: "".join(output.data for output in heard if output.execution_id == execution_id)
        for execution_id in ("starter", "other")
    }
    assert texts == {"starter": "thread\ntask\n", "other": "mine\n"}


async def test_row_14_output_of_c_code_and_children_is_there(shared: pyrepl3.Session) -> None:
    """Row 14: what C++ libraries and subprocesses write is missing."""
    result = await shared.execute(
        "import ctypes, subprocess\nlibc = ctypes.CDLL(None)\n"
        "libc.puts(b'from C'); libc.fflush(None)\nsubprocess.run(['echo', 'from a child'])\n"
        "subprocess.run('echo oops >&2', shell=True) and None"
    )
    assert (result.stdout, result.stderr) == ("from C\nfrom a child\n", "oops\n")


async def test_row_15_a_child_can_be_given_sys_stdout(shared: pyrepl3.Session) -> None:
    """Row 15: `Popen(stdout=sys.stdout)` fails, for there is no fileno."""
    code = (
        "import subprocess, sys\nsubprocess.Popen(['echo', 'x'], stdout=sys.stdout, stderr=sys.stderr).wait()"
    )
    assert (await shared.execute(code)).stdout == "x\n"


async def test_row_16_whatever_libraries_print_the_protocol_stays_whole(shared: pyrepl3.Session) -> None:
    """Row 16: a print in a library corrupts a protocol on stdio; it is the commonest bug of such servers."""
    result = await shared.execute(
        "import os, sys, subprocess, logging\n"
        "for n in range(100):\n"
        "    print('{\"jsonrpc\"'); os.write(1, b'\\0\\0\\0\\5'); sys.__stdout__.write('\\x93')\n"
        "    os.write(2, b'\\xff'); sys.stdout.buffer.write(b'\\xdf\\xff'); sys.stdout.flush()\n"
        "sys.stdin.read()\n"
        "'whole'"
    )
    assert result.value == "whole"
    assert await works(shared)


async def test_row_17_much_output_is_bounded_at_its_source_not_dropped_by_its_rate(
    shared: pyrepl3.Session,
) -> None:
    """Row 17: too much output freezes the client; a rate limit then drops what was wanted."""
    fast = await shared.execute("for i in range(100_000): print(i)")
    assert fast.stdout.count("\n") == 100_000
    assert not fast.truncated
    async with pyrepl3.open_session(config=quick(max_output_bytes=100_000)) as bounded:
        much = await bounded.execute("for i in range(100_000): print(i)")
    assert much.truncated
    assert len(much.stdout) < 110_000


async def test_row_18_verbose_c_code_does_not_deadlock(shared: pyrepl3.Session) -> None:
    """Row 18: the pipe is full, and the thread that would read it waits for the GIL."""
    code = (
        "import ctypes\ndata = b'v' * 3_000_000\nsent = 0\n"
        "while sent < len(data): sent += ctypes.PyDLL(None).write(1, data[sent:], len(data) - sent)"
    )
    with anyio.fail_after(10):
        assert len((await shared.execute(code)).stdout) == 3_000_000


async def test_row_19_cut_output_keeps_the_end_where_the_answer_is() -> None:
    """Row 19: output is cut after its head, and the answer at its end is lost."""
    async with pyrepl3.open_session(config=quick(max_output_bytes=10_000)) as session:
        result = await session.execute("for i in range(5000): print('noise', i)\nprint('the answer is 42')")
    assert result.stdout.startswith("noise 0\n")
    assert result.stdout.endswith("the answer is 42\n")


FIGURES = """
class Figure:
    def __init__(self, number): self.number = number
    def get_children(self): return ["background", "axes"]
    def savefig(self, file, **options): file.write(b"PNG of figure %d" % self.number)
"""
PYPLOT = """
from matplotlib.figure import Figure
_open = {}
def figure(number=None):
    number = number or len(_open) + 1
    return _open.setdefault(number, Figure(number))
def get_fignums(): return sorted(_open)
def close(which=None): _open.clear() if which == "all" else _open.pop(getattr(which, "number", which), None)
"""


async def test_row_20_open_figures_are_shown_at_the_end_of_the_cell(tmp_path: Path) -> None:
    """Row 20: a plot is returned only after `plt.show()`. The library here is one of a few lines."""
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").touch()
    (tmp_path / "matplotlib" / "figure.py").write_text(FIGURES)
    (tmp_path / "matplotlib" / "pyplot.py").write_text(PYPLOT)
    async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(cwd=str(tmp_path))) as session:
        execution = session.start(
            "import matplotlib.pyplot as plt\nplt.figure(); plt.figure()\nprint('drawn')"
        )
        events = [event async for event in execution]
        shown = [event for event in events if isinstance(event, Display)]
        assert ["image/png" in display.data for display in shown] == [True, True]
        assert len((await execution.result()).displays) == 2
        assert not (await session.execute("plt.get_fignums()")).displays


async def test_row_21_input_works_everywhere(answering: pyrepl3.Session) -> None:
    """Row 21: `input()` is unsupported in many frontends, and in threads and callbacks."""
    code = (
        "import asyncio, threading\ngot = [input('plain')]\n"
        "t = threading.Thread(target=lambda: got.append(input('thread'))); t.start(); t.join()\n"
        "got += map(input, ['callback'])\ngot.append(await asyncio.to_thread(input, 'pool'))\ngot"
    )
    assert await value(answering, code) == ["re: plain", "re: thread", "re: callback", "re: pool"]


async def test_row_22_asyncio_run_works_although_a_loop_runs(shared: pyrepl3.Session) -> None:
    """Row 22: "event loop is already running"; patches against it break other libraries."""
    await shared.execute("import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    return 'ran'")
    assert await value(shared, "asyncio.run(main())") == "ran"
    assert await value(shared, "def library(): return asyncio.run(main())\nlibrary()") == "ran"
    assert await value(shared, "[await main(), asyncio.run(main())]") == ["ran", "ran"]
    unpatched = "import asyncio.base_events as b\nb.BaseEventLoop.run_until_complete.__module__"
    assert await value(shared, unpatched) == "asyncio.base_events"


async def test_row_23_a_context_variable_reaches_the_next_cell(shared: pyrepl3.Session) -> None:
    """Row 23: a ContextVar that is set after an await is not set in the next cell."""
    await shared.execute("import asyncio, contextvars, time\nuser = contextvars.ContextVar('user')")
    for code in ("await asyncio.sleep(0)\nuser.set('{}')", "user.set('{}')", "time.sleep(0)\nuser.set('{}')"):
        await shared.execute(code.format(len(code)))
        assert await value(shared, "user.get()") == str(len(code))
        assert await value(shared, "await asyncio.sleep(0, user.get())") == str(len(code))


async def test_row_24_a_job_in_the_background_and_quick_questions_beside_it(shared: pyrepl3.Session) -> None:
    """Row 24: a long job runs, and nothing else can be asked meanwhile. A task is the answer here."""
    await shared.execute(
        "import asyncio\nprogress = 0\nstep = asyncio.Event()\nasync def job():\n    global progress\n"
        "    for _ in range(3):\n        await step.wait()\n        step.clear()\n        progress += 1\n"
        "    return 'finished'\nrunning_job = asyncio.create_task(job())"
    )
    for expected in (1, 2, 3):
        code = "step.set()\nfor _ in range(3): await asyncio.sleep(0)\nprogress"
        assert await value(shared, code) == expected
    assert await value(shared, "await running_job") == "finished"


async def test_row_25_completion_and_inspection_answer_while_code_runs(shared: pyrepl3.Session) -> None:
    """Row 25: completion is blocked while a cell runs."""
    await shared.execute("wanted_name = 1")
    execution = shared.start("print('ready')\nwhile True: pass")
    await seen(execution)
    with anyio.fail_after(PROMPT):
        assert "wanted_name" in (await shared.complete("wanted_")).matches
        assert (await shared.inspect("wanted_name")).type_name == "int"
    await stop(execution)


async def test_row_26_a_session_from_the_pool_is_there_at_once() -> None:
    """Row 26: kernels start slowly, and how slowly is not known."""
    async with pyrepl3.WorkerPool(1, quick(), warm=("decimal",)) as pool:
        begin = time.monotonic()
        async with pool.open_session() as session:
            assert await value(session, "1 + 1") == 2
            assert time.monotonic() - begin < 0.1
            assert await value(session, "import sys; 'decimal' in sys.modules") is True


async def test_row_27_nothing_is_left_after_closing_or_crashing() -> None:
    """Row 27: orphans and zombies after a shutdown or a crash."""
    pids: list[int] = []
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        for end in ("import os; os._exit(1)", "pass"):
            pids.append(session.worker.pid)
            pids.append(await value(session, "import subprocess\nsubprocess.Popen(['sleep', '600']).pid"))
            try:
                await session.execute(end)
            except pyrepl3.WorkerDied:
                await session.restart()
        assert lives(pids[-1])
    for pid in pids:
        assert await ended(pid)


async def test_row_29_a_timeout_stops_the_code_once_and_in_time(shared: pyrepl3.Session) -> None:
    """Row 29: the timeout does nothing, or takes twice as long, or leaves the process computing."""
    await shared.execute("import time\nsteps = 0")
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        await shared.execute("while True:\n    steps += 1", timeout=0.2)
    assert 0.2 <= time.monotonic() - begin < 0.2 + PROMPT
    assert await value(shared, "before = steps; time.sleep(0.02); steps == before") is True


async def test_row_30_nobody_waits_for_ever_for_a_lost_worker(session: pyrepl3.Session) -> None:
    """Row 30: the client waits for a reply that will never come."""
    executions = [session.start("input()"), session.start("1"), session.start("2")]
    last = session.start("import os; os.kill(os.getpid(), 9)")
    with anyio.fail_after(10):
        for execution in executions:
            await outcome(execution)
        with pytest.raises(pyrepl3.WorkerDied):
            await last.result()
        with pytest.raises(pyrepl3.WorkerDied):
            await session.ping()


async def test_row_32_import_control_is_a_guard_rail_and_says_so() -> None:
    """Row 32: denylists inside the process are escaped again and again. This one does not claim otherwise."""
    from pyrepl3_worker.code import import_control

    async with pyrepl3.open_session(config=quick(denied_modules=frozenset({"os"}))) as session:
        result = await run(session, "import os")
        assert result.error is not None
        assert "denied_modules" in result.error.message
        assert await value(session, "import sys\n'getpid' in dir(sys.modules['os'])") is True
    assert import_control.__doc__ is not None
    assert "guard rail" in import_control.__doc__
    assert "not a boundary" in import_control.__doc__


async def test_row_34_the_code_calls_tools_that_stay_with_the_host() -> None:
    """Row 34: sandboxed code cannot call the host's tools."""
    secrets = {"token": "kept here"}

    async def search(query: str, limit: int = 2) -> list[str]:
        return [f"{query} {n} by {len(secrets['token'])}" for n in range(limit)]

    async with pyrepl3.open_session(config=quick(), capabilities={"search": search}) as session:
        execution = session.start("found = await search('cats')\nfound + await search('dogs', limit=1)")
        calls = [event.call_id.partition(":")[2] async for event in execution if isinstance(event, Call)]
        assert (await execution.result()).value == ["cats 0 by 9", "cats 1 by 9", "dogs 0 by 9"]
        assert calls == ["search:1", "search:2"]
        assert await value(session, "await search('birds', 1)") == ["birds 0 by 9"]
        assert await value(session, "'secrets' in globals()") is False


async def test_row_36_state_is_kept_between_calls(shared: pyrepl3.Session) -> None:
    """Row 36: every call starts from nothing, whatever session id it names."""
    await shared.execute(
        "import collections\nseen_words = collections.Counter()\ndef learn(w): seen_words[w] += 1"
    )
    await shared.execute("learn('a'); learn('b')")
    await run(shared, "learn('a'); 1/0")
    assert await value(shared, "dict(seen_words)") == {"a": 2, "b": 1}
