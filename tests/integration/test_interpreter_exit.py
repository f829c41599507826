"""The interpreter always ends, and leaves no worker behind, whatever form a session was kept in."""

import os
import random
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

SECONDS = 40.0
"""Far more than any program takes: on a busy machine too."""
SYNC = """
import sys, os, threading, signal, atexit, contextlib
from pyrepl3_client import sync
def told(session):
    print('pid', session.worker.pid, flush=True)
    return session
"""
ASYNC = """
import sys, os, threading, asyncio, contextlib, contextvars
import pyrepl3_client as pyrepl3
def told(session):
    print('pid', session.worker.pid, flush=True)
    return session
"""
BUSY = "import time\\nwhile True: time.sleep(0.1)"


@dataclass(frozen=True)
class Program:
    """A program, and how it ends."""

    source: str
    code: int = 0
    unclosed: bool = True
    """Whether a ResourceWarning names a session that nobody closed."""


PROGRAMS = {
    "a global": Program(f"{SYNC}s = told(sync.open_session())\nprint(s.execute('1').value)"),
    "a context that is not left": Program(f"{SYNC}s = sync.open_session(); told(s.__enter__())"),
    "a deleted name": Program(f"{SYNC}s = told(sync.open_session())\ndel s"),
    "closed": Program(f"{SYNC}s = told(sync.open_session())\ns.close(); s.close()", unclosed=False),
    "left": Program(f"{SYNC}with sync.open_session() as s: told(s)", unclosed=False),
    "an exit stack": Program(f"{SYNC}k = contextlib.ExitStack(); told(k.enter_context(sync.open_session()))"),
    "a generator": Program(
        f"{SYNC}def g():\n    with sync.open_session() as s:\n        told(s)\n        while True: yield s.execute('1').value\n"
        "it = g(); next(it)"
    ),
    "a class's attribute": Program(f"{SYNC}class App: session = told(sync.open_session())"),
    "a reference cycle": Program(f"{SYNC}a = [told(sync.open_session())]; a.append(a); del a"),
    "a thread": Program(
        f"{SYNC}def work(): global s; s = told(sync.open_session()); s.execute('1')\n"
        "t = threading.Thread(target=work); t.start(); t.join()"
    ),
    "a daemon thread that waits": Program(
        f"{SYNC}ready = threading.Event()\n"
        "def work():\n    s = told(sync.open_session()); s.start('1').result(); ready.set()\n"
        f"    s.execute('''{BUSY}''')\n"
        "threading.Thread(target=work, daemon=True).start(); ready.wait()"
    ),
    "several": Program(f"{SYNC}s = [told(sync.open_session()) for _ in range(3)]"),
    "a running cell": Program(f"{SYNC}s = told(sync.open_session())\ne = s.start('''{BUSY}''')"),
    "an iteration that is not at its end": Program(
        f"{SYNC}s = told(sync.open_session())\nit = iter(s.start('for i in range(9): print(i)')); next(it)"
    ),
    "an exception": Program(f"{SYNC}s = told(sync.open_session())\n1 / 0", code=1),
    "sys.exit": Program(f"{SYNC}s = told(sync.open_session())\nsys.exit(3)", code=3),
    "sys.exit inside": Program(
        f"{SYNC}with sync.open_session() as s: told(s); sys.exit(3)", 3, unclosed=False
    ),
    "os._exit": Program(f"{SYNC}s = told(sync.open_session())\nos._exit(4)", code=4, unclosed=False),
    "SIGTERM": Program(
        f"{SYNC}s = told(sync.open_session())\nos.kill(os.getpid(), signal.SIGTERM)",
        -signal.SIGTERM,
        unclosed=False,
    ),
    "Ctrl-C": Program(
        f"{SYNC}s = told(sync.open_session())\nos.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT
    ),
    "a handler of its own at exit": Program(
        f"{SYNC}s = told(sync.open_session())\natexit.register(s.close)", unclosed=False
    ),
    "used at exit": Program(f"{SYNC}s = told(sync.open_session())\natexit.register(lambda: s.execute('1'))"),
    "a finalizer that closes": Program(
        f"{SYNC}class Owner:\n    def __init__(self): self.s = told(sync.open_session())\n"
        "    def __del__(self): self.s.close()\no = Owner()"
    ),
    "a pool": Program(
        f"{SYNC}p = sync.WorkerPool(2, fork=False).__enter__(); s = told(p.open_session()); print(s.execute('1').value)"
    ),
    "a strict session": Program(
        f"{SYNC}from pyrepl3_client import WorkerConfig\ns = told(sync.open_session(config=WorkerConfig(confinement='strict')))"
    ),
    "a store": Program(
        f"{SYNC}import tempfile\nd = tempfile.TemporaryDirectory()\ns = told(sync.open_session('s', store=d.name + '/s.db'))\n"
        "print(s.execute('x = 1').value)"
    ),
    "a forked child that exits": Program(
        f"{SYNC}with sync.open_session() as s:\n    told(s); pid = os.fork()\n    if pid == 0:\n"
        "        try: s.execute('1')\n        except Exception as error: print(error, flush=True)\n        sys.exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n    assert s.execute('6 * 7').value == 42",
        unclosed=False,
    ),
    "a forked child with a session of its own": Program(
        f"{SYNC}s = told(sync.open_session())\npid = os.fork()\nif pid == 0:\n"
        "    with sync.open_session() as t: assert t.execute('1').value == 1\n    sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\nassert s.execute('2').value == 2"
    ),
    "async: a loop that is over": Program(
        f"{ASYNC}async def main():\n    global s\n    s = told(await pyrepl3.open_session()); await s.execute('1')\nasyncio.run(main())"
    ),
    "async: an exit stack": Program(
        f"{ASYNC}async def main():\n    global k\n    k = contextlib.AsyncExitStack()\n"
        "    told(await k.enter_async_context(pyrepl3.open_session()))\nasyncio.run(main())"
    ),
    "async: an unfinished generator": Program(
        f"{ASYNC}async def g():\n    async with pyrepl3.open_session() as s:\n        told(s); yield 1; yield 2\n"
        "async def main():\n    global it\n    it = g(); await anext(it)\nasyncio.run(main())",
        unclosed=False,
    ),
    "async: a context variable": Program(
        f"{ASYNC}v = contextvars.ContextVar('v')\nasync def main(): v.set(told(await pyrepl3.open_session()))\n"
        "asyncio.run(main(), debug=False)"
    ),
    "async: a running cell and an exception": Program(
        f"{ASYNC}async def main():\n    s = told(await pyrepl3.open_session()); s.start('''{BUSY}'''); raise SystemExit(5)\n"
        "asyncio.run(main())",
        code=5,
    ),
    "async: a task that is cancelled at the end": Program(
        f"{ASYNC}async def main():\n    s = told(await pyrepl3.open_session())\n    global t\n"
        f"    t = asyncio.create_task(s.execute('''{BUSY}''')); await asyncio.sleep(0)\nasyncio.run(main())"
    ),
    "the REPL": Program("", unclosed=True),
}


@dataclass(frozen=True)
class End:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def workers(self) -> list[int]:
        """Pids of the workers that it told of."""
        return [int(line.split()[1]) for line in self.out.splitlines() if line.startswith("pid ")]


@cache
def end_of(name: str) -> End:
    """Run a program to its end, or fail when it does not come. For two tests of one program, run it once."""
    program = PROGRAMS[name]
    command, text = [sys.executable, "-W", "default", "-c", program.source], None
    if name == "the REPL":
        command, text = (
            [sys.executable, "-W", "default", "-i", "-q"],
            f"{SYNC}\ns = told(sync.open_session())\n",
        )
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False)
    return End(done.returncode, done.stdout, done.stderr)


def has_ended(pid: int) -> bool:
    """Return whether a process ends within `SECONDS`."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], SECONDS)[0])
    finally:
        os.close(process)


def test_there_are_enough_programs() -> None:
    assert len(PROGRAMS) >= 25


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends(name: str) -> None:
    end = end_of(name)
    assert end.code == PROGRAMS[name].code, end.err
    assert end.workers, end.err
    for pid in end.workers:
        assert has_ended(pid)
    assert ("was never closed" in end.err) is PROGRAMS[name].unclosed, end.err
    assert "Fatal Python error" not in end.err
    assert "Exception ignored" not in end.err, end.err


def test_a_forked_child_is_told_whose_session_it_is() -> None:
    end = end_of("a forked child that exits")
    assert "belongs to process" in end.out
    assert "forked child" in end.out


INTERRUPTED = f"""
{SYNC}
import time
print('begin', flush=True)
with sync.open_session() as s:
    told(s)
    for n in range(1000):
        s.execute(f'x = {{n}}; print(x)')
        for event in s.start('y = 1'): pass
        s.checkpoint('c')
"""


def shoot(seed: int) -> None:
    """Press Ctrl-C at a random moment of a program, twice at times; it ends, and so do its workers."""
    chance = random.Random(seed)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        for _ in range(chance.choice([1, 1, 2])):
            try:
                program.wait(chance.uniform(0.0, 0.6))
            except subprocess.TimeoutExpired:
                program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=SECONDS)
    # Python drops a KeyboardInterrupt that strikes in a weak reference's callback or a `__del__`, and says so.
    dropped = "Exception ignored in" in err and "KeyboardInterrupt" in err
    assert program.returncode in (-signal.SIGINT, 1) or dropped, f"seed {seed}: {err}"
    for pid in End(0, out, err).workers:
        assert has_ended(pid), f"seed {seed}"


@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_ends_a_program(seed: int) -> None:
    shoot(seed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ctrl_c_ends_a_program_at_any_moment() -> None:
    first = int(os.environ.get("PYREPL3_SEED", "1000"))
    for seed in range(first, first + 100):
        shoot(seed)


def test_the_record_of_a_session_that_nobody_closed_stays(tmp_path: Path) -> None:
    source = f"{SYNC}s = told(sync.open_session('s', store={str(tmp_path / 's.db')!r}))\ns.execute('x = 41')"
    subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, timeout=SECONDS)
    again = f"{SYNC}with sync.open_session('s', store={str(tmp_path / 's.db')!r}) as s: print(s.execute('x + 1').value)"
    done = subprocess.run(
        [sys.executable, "-c", again], check=True, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.stdout == "42\n"
