"""What is cut of the code's output can be read: any part of it, by whatever way it was written or it ended."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from pyrepl3_client._session.recovery_report import RecoveryPolicy
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.messages import Execute, FromWorker, Hello, Output, OutputRest, Ready, Result
from tests.helpers.lying_sessions import lying
from tests.helpers.raw_worker import RawWorker
from tests.helpers.real_sessions import quick, run, stop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

LIMIT = 2000
MIB = 1024 * 1024
LINES = "".join(f"{n} é€🎉\n" for n in range(3000))
PRINT_LINES = "for n in range(3000): print(n, 'é€🎉')\n"


def keeping(**options: object) -> pyrepl3.WorkerConfig:
    return replace(quick(max_output_bytes=LIMIT), **options)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
async def cutting_session() -> AsyncIterator[pyrepl3.Session]:
    """A session that has its file already: it is no leak of the test that first cuts."""
    async with pyrepl3.open_session(config=keeping()) as session:
        await session.execute(f"print('x' * {LIMIT})")
        yield session


async def told(session: pyrepl3.Session, code: str, *, check: bool = True) -> pyrepl3.Execution:
    """Start code and wait until it calls `ready()`: what it has written before has come."""
    ready = asyncio.Event()
    session.offer(ready=ready.set)
    execution = session.start(code, check=check)
    async with asyncio.timeout(10):
        await ready.wait()
    return execution


async def check(execution: pyrepl3.Execution, stdout: str, stderr: str = "") -> None:
    """Compare all and some parts of both streams with the slices that they have to be."""
    chosen = random.Random(len(stdout))
    for stream, text in (("stdout", stdout), ("stderr", stderr)):
        assert await execution.output(stream=stream) == text  # pyright: ignore[reportArgumentType]
        edge = len(text)
        bounds = [
            (0, 1),
            (edge - 1, None),
            (-1, None),
            (-edge, -1),
            (edge, None),
            (edge + 5, edge + 9),
            (5, 2),
        ]
        bounds += [(chosen.randrange(edge + 1), chosen.randrange(edge + 1)) for _ in range(20)]
        for first, end in bounds:
            part = await execution.output(first, end, stream)  # pyright: ignore[reportArgumentType]
            assert part == text[first:end], (stream, first, end)


HALF = LIMIT // 2
BIG = "é€🎉x" * 50_000
"""It crosses blocks of the file in the middle of characters."""


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        pytest.param("print('a')", "a\n", "", id="not cut"),
        pytest.param("1", "", "", id="nothing written"),
        pytest.param(f"print('x' * {LIMIT}, end='')", "x" * LIMIT, "", id="exactly at the bound"),
        pytest.param(f"print('x' * {LIMIT + 1}, end='')", "x" * (LIMIT + 1), "", id="one byte more"),
        pytest.param(f"print('x' * {HALF - 1} + 'é' * {HALF})", "x" * (HALF - 1) + "é" * HALF + "\n", "", id="two bytes where the head ends"),
        pytest.param(f"print('x' * {HALF - 1} + '€' * {HALF})", "x" * (HALF - 1) + "€" * HALF + "\n", "", id="three bytes there"),
        pytest.param(f"print('x' * {HALF - 1} + '🎉' * {HALF})", "x" * (HALF - 1) + "🎉" * HALF + "\n", "", id="four bytes there"),
        pytest.param(f"print('xx' + '🎉' * {LIMIT})", "xx" + "🎉" * LIMIT + "\n", "", id="four bytes everywhere"),
        pytest.param(PRINT_LINES, LINES, "", id="many prints"),
        pytest.param(f"print('é€🎉x' * {len(BIG) // 4}, end='')", BIG, "", id="one print over many blocks"),
        pytest.param("import sys\nfor n in range(2000): print(n, file=(sys.stdout, sys.stderr)[n % 2])", "".join(f"{n}\n" for n in range(0, 2000, 2)), "".join(f"{n}\n" for n in range(1, 2000, 2)), id="streams in turns"),
        pytest.param("import sys\nprint('a')\nsys.stderr.write('e' * 5000) and None", "a\n", "e" * 5000, id="only stderr is cut"),
        pytest.param("import threading\nts = [threading.Thread(target=print, args=('t' * 1500,)) for _ in range(8)]\nfor t in ts: t.start(); t.join()", ("t" * 1500 + "\n") * 8, "", id="threads"),
        pytest.param("import asyncio\nasync def say(n):\n    await asyncio.sleep(0)\n    print(str(n) * 1000)\nawait asyncio.gather(*map(say, range(9)))", "".join(str(n) * 1000 + "\n" for n in range(9)), "", id="tasks"),
        pytest.param("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(\"c\" * 90000)']) and None", "c" * 90000 + "\n", "", id="a child process"),
        pytest.param("import subprocess\nsubprocess.run(['sh', '-c', 'seq 1 3000 >&2']) and None", "", "".join(f"{n}\n" for n in range(1, 3001)), id="a child's stderr"),
        pytest.param("import os\nfor n in range(3000): os.write(1, b'%d\\n' % n)", "".join(f"{n}\n" for n in range(3000)), "", id="os.write"),
        pytest.param("import os\nos.write(1, b'w' * 60000)", "w" * 60000, "", id="a large write"),
        pytest.param("import os\nfor n in range(2000): print(n) if n % 2 else os.write(1, b'%d\\n' % n)", "".join(f"{n}\n" for n in range(2000)), "", id="print and os.write in turns"),
        pytest.param("import os\nprint('p' * 900)\nos.write(1, b'w' * 50000)\nprint('q' * 900)\nos.write(1, b'v' * 50000)\nprint('end')", "p" * 900 + "\n" + "w" * 50000 + "q" * 900 + "\n" + "v" * 50000 + "end\n", "", id="both past the bound"),
        pytest.param("import ctypes\nlibc = ctypes.CDLL(None)\nfor _ in range(2000): libc.puts(b'from C')\nlibc.fflush(None)", "from C\n" * 2000, "", id="stdio of C"),
        pytest.param("import os\nfor b in '🎉é'.encode() * 1000: os.write(1, bytes([b]))", "🎉é" * 1000, "", id="bytes one by one"),
        pytest.param("import sys\nsys.stdout.buffer.write(b'a\\xff' * 2000) and None", "a\ufffd" * 2000, "", id="bytes that are no UTF-8"),
        pytest.param("print('\\udc80' * 2000)", "\\udc80" * 2000 + "\n", "", id="lone surrogates"),
        pytest.param("import logging\nlogging.basicConfig(level=10, force=True, format='%(message)s')\nfor n in range(1000): logging.info('line %d', n)", "", "".join(f"line {n}\n" for n in range(1000)), id="logging"),
        pytest.param("for n in range(500): print(n); display(n) if n == 250 else None", "".join(f"{n}\n" for n in range(500)), "", id="a display in between"),
    ],
)  # fmt: skip
async def test_any_part_of_what_was_written_can_be_read(
    cutting_session: pyrepl3.Session, code: str, stdout: str, stderr: str
) -> None:
    execution = cutting_session.start(code)
    result = await execution
    cut = len((stdout + stderr).encode()) > LIMIT
    assert result.truncated is cut
    assert ("; see output()) …" in result.stdout + result.stderr) is cut
    await check(execution, stdout, stderr)
    if cut:
        assert await cutting_session.output(result.execution_id, 3, -3) == stdout[3:-3]
        assert await cutting_session.output(result.execution_id, stream="stderr") == stderr


async def test_the_text_is_there_while_the_code_runs(cutting_session: pyrepl3.Session) -> None:
    execution = await told(cutting_session, "import time\nprint('x' * 9999)\nready()\ntime.sleep(60)")
    assert await execution.output() == "x" * 9999 + "\n"
    assert await cutting_session.output(execution.execution_id, -3) == "xx\n"
    await stop(execution)
    assert await execution.output() == "x" * 9999 + "\n"


async def test_fifty_megabytes(cutting_session: pyrepl3.Session) -> None:
    execution = cutting_session.start(
        "line = 'x' * 99 + '\\n'\nfor n in range(50): print(n, line * 10_000, end='')"
    )
    result = await execution
    assert len(result.stdout) < 2 * LIMIT
    whole = "".join(f"{n} {('x' * 99 + chr(10)) * 10_000}" for n in range(50))
    assert await execution.output() == whole
    assert await execution.output(25_000_000, 25_000_100) == whole[25_000_000:25_000_100]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(PRINT_LINES + "1 / 0", "exception", id="an error"),
        pytest.param(
            PRINT_LINES + "import os, sys; sys.stdout.flush(); os._exit(3)",
            "died",
            id="the code ends its worker",
        ),
        pytest.param(
            PRINT_LINES + "import os, sys; sys.stdout.flush(); os.kill(os.getpid(), 9)",
            "died",
            id="the code kills its worker",
        ),
        pytest.param(
            "import os\nos.write(1, b'a' * 5000); os.abort()", "died", id="abort after a write past Python"
        ),
    ],
)
async def test_the_text_is_there_however_the_execution_ends(code: str, kind: str) -> None:
    text = LINES if "range" in code else "a" * 5000
    async with pyrepl3.open_session(config=keeping()) as session:
        execution = session.start(code, check=False)
        result = await execution
        assert (result.truncated, result.error is not None and result.error.kind) == (True, kind)
        await check(execution, text, await execution.output(stream="stderr"))
        assert await session.output(result.execution_id) == text
        # What it wrote last is in the result too.
        assert result.stdout.endswith(text[-100:])


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("import time; time.sleep(60)", id="it stops"),
        pytest.param("import signal\nwhile True:\n    try: signal.pause()\n    except BaseException: pass", id="it is killed"),
    ],
)  # fmt: skip
async def test_the_text_of_a_cancelled_execution(rest: str) -> None:
    async with pyrepl3.open_session(config=keeping()) as session:
        execution = await told(session, PRINT_LINES + "ready()\n" + rest)
        result = await stop(execution)
        assert result.truncated
        assert result.stdout.startswith(LINES[:100])
        await check(execution, LINES, await execution.output(stream="stderr"))
        await session.execute("1")


async def test_an_execution_that_runs_again_has_the_text_of_its_last_run(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    code = (
        f"import os, time\nagain = os.path.exists({str(flag)!r})\n"
        f"print(('second ' if again else 'first ') * 1000)\nopen({str(flag)!r}, 'w').close()\n"
        "ready()\nif not again: time.sleep(60)"
    )
    async with pyrepl3.open_session(config=keeping()) as session:
        execution = await told(session, code)
        assert await execution.output(0, 6) == "first "
        os.kill(session.worker.pid, signal.SIGKILL)
        result = await execution
        assert result.attempts == 2
        await check(execution, "second " * 1000 + "\n")
        assert await session.output(result.execution_id, 0, 6) == "second"


async def test_a_restart_and_the_close() -> None:
    async with pyrepl3.open_session(config=keeping()) as session:
        done = await session.execute(PRINT_LINES)
        code = "print('x' * 5000)\nready()\nimport time; time.sleep(60)"
        execution = await told(session, code, check=False)
        await session.restart()
        assert await session.output(done.execution_id) == LINES
        assert await execution.output() == "x" * 5000 + "\n"
        assert (await session.execute("print(1)")).stdout == "1\n"
        small = session.start("print('small')")
        await small
    for question in (execution.output(), session.output(done.execution_id)):
        with pytest.raises(pyrepl3.SessionClosed):
            await question
    assert await small.output() == "small\n"


async def test_without_room_the_oldest_text_goes_and_the_newest_stops() -> None:
    async with pyrepl3.open_session(config=keeping(max_spill_bytes=MIB)) as session:
        first = await session.execute("print('1' * 300_000)")
        second = await session.execute("print('2' * 300_000)")
        third = session.start("import sys\nsys.stderr.write('e' * 9) and None\nprint('3' * 600_000)")
        await third
        with pytest.raises(
            pyrepl3.OutputNotKept, match=r"made room for later output \(max_spill_bytes=1048576\)"
        ):
            await session.output(first.execution_id)
        assert await session.output(second.execution_id) == "2" * 300_000 + "\n"
        await check(third, "3" * 600_000 + "\n", "e" * 9)
        # Alone it has all the room: its beginning stays.
        huge = session.start(
            "import sys\nsys.stderr.write('e' * 9) and None\nfor n in range(5000): print('4' * 999)"
        )
        result = await huge
        assert result.stdout.endswith("4" * 500 + "\n")
        kept = 15 * 64 * 1024
        assert await huge.output(0, kept) == (("4" * 999 + "\n") * 5000)[:kept]
        # What of the two streams is missing is not known.
        assert await huge.output(0, 9, stream="stderr") == "e" * 9
        with pytest.raises(pyrepl3.OutputNotKept, match=r"of stderr .* the first 9 characters are kept"):
            await huge.output(stream="stderr")
        for part in ((0, None), (-10, None), (kept, kept + 1), (0, -1), (kept + 1, kept + 2)):
            with pytest.raises(pyrepl3.OutputNotKept, match=f"the first {kept:,} characters are kept"):
                await huge.output(*part)
        for old in (second.execution_id, third.execution_id):
            with pytest.raises(pyrepl3.OutputNotKept, match="made room"):
                await session.output(old)
        assert (await session.execute("print('on')")).stdout == "on\n"


def files_in(folder: Path, pid: int | None = None) -> list[int]:
    """Return a process's fds of files in a folder, also of those that have no name; this one's by default."""
    found: list[int] = []
    fds = f"/proc/{pid or os.getpid()}/fd"
    for fd in map(int, os.listdir(fds)):
        try:
            if os.readlink(f"{fds}/{fd}").startswith(str(folder)):
                found.append(fd)
        except FileNotFoundError:
            pass  # the list's own
    return found


async def test_there_is_one_file_that_only_this_process_has(tmp_path: Path) -> None:
    config = keeping(max_spill_bytes=MIB, spill_directory=str(tmp_path))
    async with pyrepl3.open_session(config=config) as session:
        await session.execute("print('not cut')")
        assert files_in(tmp_path) == []
        for n in range(6):
            await session.execute(f"for _ in range(40): print('{n}' * 9999)")
        (fd,) = files_in(tmp_path)
        status = os.fstat(fd)
        assert (status.st_nlink, status.st_mode & 0o777) == (0, 0o600)
        assert status.st_size <= MIB
        assert os.listdir(tmp_path) == []
        assert files_in(tmp_path, session.worker.pid) == []
        os.kill(session.worker.pid, signal.SIGKILL)
        await run(session, PRINT_LINES)
        await session.restart()
        await session.execute(PRINT_LINES)
        assert files_in(tmp_path) == [fd]
    assert files_in(tmp_path) == []


async def test_where_no_file_can_be_made_the_session_goes_on(tmp_path: Path) -> None:
    config = keeping(spill_directory=str(tmp_path / "none"))
    async with pyrepl3.open_session(config=config) as session:
        execution = session.start(PRINT_LINES)
        assert (await execution).truncated
        with pytest.raises(pyrepl3.OutputNotKept, match=r"could not be written: .*No such file"):
            await execution.output()
        assert (await session.execute("1 + 1")).value == 2


async def test_nothing_is_kept_where_nothing_is_to_be() -> None:
    async with pyrepl3.open_session(config=keeping(max_spill_bytes=0)) as session:
        execution = session.start(PRINT_LINES + "import os; os.write(1, b'x' * 9999) and None")
        result = await execution
        assert result.truncated
        assert "output()" not in result.stdout
        with pytest.raises(pyrepl3.OutputNotKept, match="max_spill_bytes=0"):
            await execution.output()
        with pytest.raises(pyrepl3.OutputNotKept, match="max_spill_bytes=0"):
            await session.output(result.execution_id)


async def test_all_of_it_is_in_the_result_where_nothing_is_cut() -> None:
    async with pyrepl3.open_session(
        config=replace(quick(), executor=ExecutorConfig(max_output_bytes=None))
    ) as session:
        execution = session.start(PRINT_LINES)
        assert (await execution).stdout == LINES
        await check(execution, LINES)
        with pytest.raises(pyrepl3.OutputNotKept, match="what was not is in the result"):
            await session.output(execution.execution_id)


async def test_arguments_are_checked(cutting_session: pyrepl3.Session) -> None:
    result = await cutting_session.execute(PRINT_LINES)
    execution = cutting_session.start("1")
    await execution
    for target in (execution.output, partial(cutting_session.output, result.execution_id)):
        with pytest.raises(ValueError, match="stream must be"):
            await target(0, 1, "stdin")  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="start must be a whole number"):
            await target(0.5)  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="stop must be a whole number"):
            await target(0, "9")  # pyright: ignore[reportArgumentType]
    with pytest.raises(pyrepl3.OutputNotKept, match="'unheard-of'"):
        await cutting_session.output("unheard-of")
    for options in ({"max_spill_bytes": 1000}, {"max_spill_bytes": -1}, {"spill_directory": "here"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            pyrepl3.WorkerConfig(**options)  # pyright: ignore[reportArgumentType]


async def test_in_a_pool_each_session_has_its_own() -> None:
    async with pyrepl3.WorkerPool(1, keeping()) as pool:
        async with pool.open_session() as session:
            first = await session.execute(PRINT_LINES, execution_id="one")
            assert await session.output(first.execution_id) == LINES
        async with pool.open_session() as session:
            with pytest.raises(pyrepl3.OutputNotKept):
                await session.output("one")
            await session.execute("print('y' * 5000)", execution_id="one")
            assert await session.output("one", -3) == "yy\n"


async def test_under_strict_confinement() -> None:
    async with pyrepl3.open_session(config=keeping(confinement="strict")) as session:
        execution = session.start(PRINT_LINES + "import os; os.write(1, b'x' * 9999) and None")
        await execution
        await check(execution, LINES + "x" * 9999)


async def test_a_session_that_is_opened_again_has_it_on_record(tmp_path: Path) -> None:
    store, config = str(tmp_path / "store.db"), keeping()
    big = "for n in range(6): print(n, 'é€🎉' * 50_000)"
    text = "".join(f"{n} {'é€🎉' * 50_000}\n" for n in range(6))
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        for name, code in (
            ("big", big),
            ("half", f"print('h' * {HALF + 9})"),
            ("both", "import os; os.write(2, b'e' * 9999)"),
        ):
            await session.execute(code, execution_id=name)
        await run(
            session,
            PRINT_LINES + "import os, sys; sys.stdout.flush(); os.kill(os.getpid(), 9)",
            execution_id="died",
        )
        assert await session.output("big", -9) == text[-9:]
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        execution = session.start(big, execution_id="big")
        result = await execution
        assert (result.replayed, result.truncated) == (True, True)
        await check(execution, text)
        assert await session.output("both", 0, 99, "stderr") == "e" * 99
        assert await session.output("both") == ""
        assert await session.output("died") == LINES
        half = session.start(f"print('h' * {HALF + 9})", execution_id="half")
        await half
        assert await half.output(-3) == "hh\n"
        assert await session.output("half", -3) == "hh\n"
        # It is gone from here when the session is closed.
        new = session.start("print('n' * 9999)")
        await new
    with pytest.raises(pyrepl3.SessionClosed):
        await new.output()
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        assert await session.output(new.execution_id, -3) == "nn\n"


@pytest.mark.parametrize("recovery", ["auto", "none"])
async def test_what_a_cell_wrote_before_a_death_or_restart_is_on_record(
    tmp_path: Path, recovery: RecoveryPolicy
) -> None:
    store, config = str(tmp_path / "store.db"), keeping()
    end = "import os, sys; sys.stdout.flush(); os.kill(os.getpid(), 9)"
    async with pyrepl3.open_session("s", store=store, config=config, recovery=recovery) as session:
        waits = await told(session, PRINT_LINES + "ready()\nimport time; time.sleep(60)", check=False)
        await session.restart()
        result = await waits
        assert result.truncated
        assert result.stdout.endswith(LINES[-100:])
        await run(session, PRINT_LINES + end, execution_id="died")
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        assert await session.output("died") == LINES
        assert await session.output(waits.execution_id) == LINES
        again = await session.execute(PRINT_LINES + end, execution_id="died", check=False)
        assert (again.replayed, again.truncated) == (True, True)
        assert again.stdout.endswith(LINES[-100:])


async def test_what_the_record_alone_cuts_is_in_it_too(tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        assert not (await session.execute("print('x' * 999_999)", execution_id="a")).truncated
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        execution = session.start("print('x' * 999_999)", execution_id="a")
        assert len((await execution).stdout) < 300_000
        await check(execution, "x" * 999_999 + "\n")


async def test_the_record_keeps_the_newest_texts_within_its_limit(tmp_path: Path) -> None:
    store, config = str(tmp_path / "store.db"), keeping(max_spill_bytes=MIB)
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        for n in range(4):
            await session.execute(f"print('{n}' * 400_000)", execution_id=f"e{n}")
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        for n in range(2, 4):
            assert await session.output(f"e{n}") == f"{n}" * 400_000 + "\n"
        for n in range(2):
            with pytest.raises(pyrepl3.OutputNotKept, match="made room"):
                await session.output(f"e{n}")
        # Longer than all that there may be: its beginning.
        await session.execute("print('x' * 3_000_000)", execution_id="long")
    async with pyrepl3.open_session("s", store=store, config=config) as session:
        with pytest.raises(pyrepl3.OutputNotKept, match=r"of stdout the first [\d,]+ characters are \("):
            await session.output("long")
        assert await session.output("long", 500_000, 500_010) == "x" * 10


async def test_what_has_made_room_here_is_read_from_the_record(tmp_path: Path) -> None:
    config = keeping(max_spill_bytes=MIB)
    async with pyrepl3.open_session("s", store=str(tmp_path / "store.db"), config=config) as session:
        executions = [session.start(f"print('{n}' * 340_000)") for n in range(3)]
        for execution in executions:
            await execution
        # Three of them fill more blocks than there are, and fewer bytes.
        for n, execution in enumerate(executions):
            assert await execution.output(-5) == f"{n}{n}{n}{n}\n"
            assert await session.output(execution.execution_id, -5) == f"{n}{n}{n}{n}\n"


def test_without_async() -> None:
    with sync.open_session(config=keeping()) as session:
        execution = session.start(PRINT_LINES)
        execution.result()
        assert execution.output(-100) == LINES[-100:]
        assert session.output(execution.execution_id) == LINES
        with pytest.raises(pyrepl3.OutputNotKept):
            session.output("unheard-of", stream="stderr")


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("rest as a stranger", "wrote as execution 'stranger', which is not in flight"),
        ("rest without end", r"bytes of the rest of execution '\w+-1', past max_spill_bytes=1048576"),
    ],
)
async def test_a_worker_that_sends_what_it_may_not_is_killed(tmp_path: Path, lie: str, why: str) -> None:
    config = lying(tmp_path, max_spill_bytes=MIB, executor=ExecutorConfig(max_output_bytes=LIMIT))
    async with pyrepl3.open_session(config=config, recovery="none") as session:
        with pytest.raises(pyrepl3.WorkerDied, match=why):
            await session.execute(lie)


@pytest.mark.parametrize(
    ("protocol", "rest", "kinds"),
    [
        pytest.param(1, 10**6, {Output}, id="a client that does not know it"),
        pytest.param(2, 0, {Output}, id="a client that wants none"),
        pytest.param(2, 10**6, {Output, OutputRest}, id="a client that wants all"),
        pytest.param(2, 5000, {Output, OutputRest}, id="a client that wants some"),
    ],
)
def test_the_rest_is_sent_to_who_asks_for_it(protocol: int, rest: int, kinds: set[type[FromWorker]]) -> None:
    with RawWorker() as worker:
        config = ExecutorConfig(max_output_bytes=LIMIT)
        worker.send(Hello(protocol=protocol, session_id="x", config=config, max_rest_bytes=rest))
        assert isinstance(worker.receive(), Ready)
        worker.send(Execute(execution_id="a", code="for n in range(999): print('%9d' % n)"))
        texts: list[Output | OutputRest] = []
        while not isinstance(message := worker.receive(), Result):
            assert isinstance(message, Output | OutputRest)
            texts.append(message)
        assert {type(text) for text in texts} == kinds
        whole = "".join("%9d\n" % n for n in range(999))  # noqa: UP031
        written = "".join(text.data for text in texts)
        if OutputRest not in kinds:
            assert "… 7,990 bytes of output cut (max_output_bytes=2000) …" in written
        elif rest > len(whole):
            assert written == whole
        else:
            (gap,) = [n for n, text in enumerate(texts) if isinstance(text, OutputRest) and text.missing]
            before, after = ("".join(t.data for t in part) for part in (texts[:gap], texts[gap:]))
            assert before == whole[: HALF + rest]
            assert after == whole[-HALF:]
            missing = texts[gap]
            assert isinstance(missing, OutputRest)
            assert missing.missing == len(whole) - len(before) - len(after)
