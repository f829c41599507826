"""What an editor's backend reads when it comes back: of each run what was recorded, nothing twice, nothing mixed."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from tests.helpers.real_sessions import quick

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

PATIENCE = 60.0
LINES = 60
CELL = f"""
import sys, time
for n in range({LINES}):
    print('line', n, RUN)
    print('error', n, file=sys.stderr)
    time.sleep(0.01)
"""
"""Writes another text in each run: RUN is the process's own."""

BACKEND = """
import asyncio, sys
import pyrepl3_client as pyrepl3

async def main():
    async with pyrepl3.open_session("s", store=sys.argv[1], recovery="auto", max_attempts=99) as session:
        await session.execute("1", execution_id="first")
        execution = session.start(sys.argv[2], execution_id="cell")
        print("begun", flush=True)
        await execution
        print("ended", flush=True)

asyncio.run(main())
"""


def cell(wait: float = 0.01) -> str:
    return CELL.replace("RUN", "id(sys) + time.time_ns()").replace("0.01", str(wait))


def recorded(store: Path) -> dict[str, int]:
    """Return how many bytes of stdout are on record of each run, as another process sees it."""
    with closing(sqlite3.connect(store)) as database:
        rows = database.execute(
            "SELECT execution, sum(size) FROM texts WHERE stream = 'stdout' AND execution LIKE 'cell:%' "
            "GROUP BY execution"
        )
        return {execution.partition(":")[2]: size for execution, size in rows}


def killed_backend(store: Path, code: str, at_least: int, seed: random.Random) -> dict[str, int]:
    """Run a backend until something of a new run is on record, and kill it; return what was on record then."""
    before = recorded(store).keys() if store.exists() else set[str]()
    with subprocess.Popen(
        [sys.executable, "-c", BACKEND, str(store), code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        wanted = seed.randrange(at_least)
        while True:
            there = recorded(store)
            new = [size for run, size in there.items() if run not in before]
            if any(size > wanted for size in new):
                break
            assert process.poll() is None, "it ended before anything was recorded"
        process.kill()
    return there


async def read_all(session: pyrepl3.Session, execution_id: str) -> dict[str, tuple[str, str]]:
    texts: dict[str, tuple[str, str]] = {}
    for run in await session.runs(execution_id):
        texts[run.run] = (
            await session.output(execution_id, 0, run.stdout, run=run.run),
            await session.output(execution_id, 0, run.stderr, "stderr", run=run.run),
        )
    return texts


def is_beginning(text: str, what: str) -> bool:
    """Whether a text is what one run has written, up to somewhere: numbered lines with one tail."""
    lines = text.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    numbers = [int(line.split()[1]) for line in whole]
    return numbers == list(range(len(whole))) and all(line.startswith(what) for line in whole)


async def test_what_was_written_before_a_kill_and_what_the_rerun_writes(tmp_path: Path) -> None:
    store, seed = tmp_path / "state.db", random.Random(7)
    code = cell().replace("0.01", "0.05")
    there = killed_backend(store, code, 200, seed)
    (first,) = there
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        before = (await session.runs("cell"))[0]
        assert (before.run, before.state) == (first, "interrupted")
        assert before.stdout >= there[first]
        assert before.missing == "its end is not on record"
        text = await session.output("cell", 0, before.stdout, run=first)
        assert is_beginning(text, "line")
        # A consumer that has some of it reads on from its position.
        assert await session.output("cell", 20, before.stdout, run=first) == text[20:]
        with pytest.raises(pyrepl3.OutputNotKept, match="its end is not on record"):
            await session.output("cell", run=first)
        # The re-run is followed by position while it goes on.
        execution = session.start(code, execution_id="cell")
        position, seen = 0, ""
        with anyio.fail_after(PATIENCE):
            async for _ in execution:
                piece = await session.output("cell", position)
                position, seen = position + len(piece), seen + piece
        seen += await session.output("cell", position)
        result = await execution
        assert seen == result.stdout
        assert len(seen.splitlines()) == LINES
        (again, last) = await session.runs("cell")
        assert again == before
        assert (last.state, last.stdout, last.stderr) == ("ended", len(result.stdout), len(result.stderr))
        assert await session.output("cell", run=last.run) == result.stdout
        assert await session.output("cell", stream="stderr", run=last.run) == result.stderr
        assert await session.output("cell") == result.stdout
    # And for whoever comes later, under the same names.
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        assert await session.runs("cell") == (before, last)
        assert await session.output("cell", 0, before.stdout, run=first) == text
        assert await session.output("cell", run=last.run) == result.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(5))
async def test_kills_at_random_moments(tmp_path: Path, number: int) -> None:
    store, seed = tmp_path / "state.db", random.Random(number)
    code = cell(0.02)
    at_kill: dict[str, int] = {}
    for _ in range(4):
        at_kill.update(killed_backend(store, code, 700, seed))
    async with pyrepl3.open_session("s", store=store, config=quick(), max_attempts=99) as session:
        with anyio.fail_after(PATIENCE):
            result = await session.execute(code, execution_id="cell")
        runs = await session.runs("cell")
        assert [run.run for run in runs] == [f"{n}.1" for n in range(1, 6)]
        texts = await read_all(session, "cell")
    for run, size in at_kill.items():
        assert len(texts[run][0]) >= size
        assert is_beginning(texts[run][0], "line")
        assert is_beginning(texts[run][1], "error")
    assert texts["5.1"] == (result.stdout, result.stderr)
    assert len({text.splitlines()[0] for text, _ in texts.values()}) == 5


@pytest.mark.parametrize("has_store", [False, True])
async def test_a_worker_that_dies_while_the_program_lives(tmp_path: Path, has_store: bool) -> None:
    store = tmp_path / "state.db" if has_store else None
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        pid = session.worker.pid
        code = (
            "import time, os\nprint('from', os.getpid(), flush=True)\nif os.getpid() == PID: time.sleep(60)"
        )
        code = code.replace("PID", str(pid))
        execution = session.start(code, execution_id="cell")
        async for event in execution:
            if isinstance(event, pyrepl3.Output):
                break
        (running,) = await session.runs("cell")
        assert (running.run, running.state) == ("1.1", "running")
        os.kill(pid, signal.SIGKILL)
        result = await execution
        first, second = await session.runs("cell")
        assert (first.run, first.state, first.missing) == ("1.1", "interrupted", "")
        assert (second.run, second.state, second.missing) == ("1.2", "ended", "")
        assert await session.output("cell", run="1.1") == f"from {pid}\n"
        assert await session.output("cell", run="1.2") == result.stdout == await session.output("cell")
        assert result.stdout != f"from {pid}\n"


async def test_a_consumer_that_was_away_reads_on_by_position(tmp_path: Path) -> None:
    async with pyrepl3.open_session("s", store=tmp_path / "state.db", config=quick()) as session:
        execution = session.start(
            "print('a' * 10)\ninput()\nprint('b' * 10)", execution_id="cell", on_input=wait
        )
        async for event in execution:
            if isinstance(event, pyrepl3.Input):
                break
        text = await session.output("cell")
        assert text == "a" * 10 + "\n"
        go_on.set()
        await execution
        assert await session.output("cell", len(text)) == "b" * 10 + "\n"
        (run,) = await session.runs("cell")
        assert await session.output("cell", len(text), run=run.run) == "b" * 10 + "\n"


go_on = asyncio.Event()


async def wait(prompt: str) -> str:
    await go_on.wait()
    return ""


async def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    async with pyrepl3.open_session("s", store=tmp_path / "state.db", config=quick()) as session:
        await session.execute("print(1)", execution_id="cell")
        with pytest.raises(pyrepl3.OutputNotKept, match=r"run 7\.1 of 'cell' is not kept: .*session\.runs"):
            await session.output("cell", run="7.1")
        with pytest.raises(pyrepl3.OutputNotKept, match="'unheard-of'"):
            await session.runs("unheard-of")
    async with pyrepl3.open_session("s", config=quick()) as session:
        result = await session.execute("print(1)")
        with pytest.raises(pyrepl3.OutputNotKept, match="started with an execution_id"):
            await session.runs(result.execution_id)


async def test_a_kill_between_the_first_texts_of_both_streams(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    (first,) = killed_backend(store, cell(0.05), 200, random.Random(3))
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("DELETE FROM texts WHERE stream = 'stderr'")
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        before = (await session.runs("cell"))[0]
        assert (before.run, before.stderr, before.missing) == (first, 0, "its end is not on record")
        assert await session.output("cell", 0, before.stderr, "stderr", run=first) == ""
        with pytest.raises(pyrepl3.OutputNotKept, match="nothing of its stderr is on record"):
            await session.output("cell", stream="stderr", run=first)
        await session.cancel()


async def test_output_that_is_cut_is_recorded_while_it_runs(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    code = "import time\nfor n in range(300_000): print('line', n, 0)\nprint('done', flush=True)\ntime.sleep(600)"
    there = killed_backend(store, code, 3_000_000, random.Random(1))
    (first,) = there
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        before = (await session.runs("cell"))[0]
        assert before.run == first
        assert before.stdout >= there[first]
        text = await session.output("cell", 0, before.stdout, run=first)
        assert is_beginning(text, "line")
        await session.cancel()


async def test_a_close_records_what_the_running_cell_has_written(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    code = "import time\nprint('x' * 50, flush=True)\ntime.sleep(60)"
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        execution = session.start(code, execution_id="cell")
        async for event in execution:
            if isinstance(event, pyrepl3.Output):
                break  # and close at once
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        before = (await session.runs("cell"))[0]
        assert (before.run, before.state, before.stdout) == ("1.1", "interrupted", 51)
        assert await session.output("cell", 0, 51, run="1.1") == "x" * 50 + "\n"
        await session.cancel()


def test_a_synchronous_session_has_the_same(tmp_path: Path) -> None:
    with sync.open_session("s", store=tmp_path / "state.db", config=quick()) as session:
        session.execute("print(1)", execution_id="cell")
        (run,) = session.runs("cell")
        assert (run.run, run.stdout) == ("1.1", 2)
        assert session.output("cell", run=run.run) == "1\n"


async def test_text_on_its_way_to_the_record_is_read_whole(tmp_path: Path) -> None:
    """An outcome is told before what it leaves out has been recorded, in parts."""
    store = tmp_path / "state.db"
    code = "import sys\nfor n in range(200_000): print('line', n)\nprint('end', file=sys.stderr)"
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        result = await session.execute(code, execution_id="cell")
        (run,) = await session.runs("cell")
        assert (run.stdout, run.stderr, run.missing) == (len(result.stdout), 4, "")
        assert await session.output("cell", -10) == result.stdout[-10:]
        assert await session.output("cell", run=run.run) == result.stdout
        again = session.start(code, execution_id="cell")
        await again
        assert await again.output() == result.stdout
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        (run,) = await session.runs("cell")
        assert (run.stdout, run.stderr, run.missing) == (len(result.stdout), 4, "")
        assert await session.output("cell", run=run.run) == result.stdout


async def test_nothing_is_left_in_the_store_of_a_run_that_has_ended(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    async with pyrepl3.open_session("s", store=store, config=quick()) as session:
        await session.execute(
            "import time\nprint('x', flush=True); time.sleep(0.5); print('y')", execution_id="cell"
        )
    assert recorded(store) == {}
