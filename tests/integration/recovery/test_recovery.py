"""Sessions that come back: from their worker's death, and from their parent's."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._session import death_policy, replay
from pyrepl3_client._session.death_policy import Backoff
from tests.helpers.real_sessions import quick, when_back

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

FROM_OUTSIDE = "import os; os.system(f'kill -9 {os.getpid()}')"
"""Ends the worker by another process's signal."""
OWN_DOING = [
    "os._exit(0)", "os.abort()", "ctypes.string_at(0)", "os.kill(os.getpid(), 9)", "os.killpg(0, 9)",
    "os.kill(os.getpid(), signal.SIGTERM)", "signal.raise_signal(signal.SIGTERM)",
    "signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)",
    "os.fork() or os.kill(os.getppid(), 9); time.sleep(60)",
]  # fmt: skip
"""Ends the worker by what the code does itself."""
DIE_ONCE = """
import os
print('begun')
name = input('name? ')
paid = pay(21)
if not os.path.exists({flag!r}):
    open({flag!r}, 'w').close()
    os.system(f'kill -9 {{os.getpid()}}')
print('done', name)
(name, paid)
"""


class World:
    """What the code asks of the outside, counted."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.paid: list[int] = []

    def answer(self, prompt: str) -> str:
        self.prompts.append(str(prompt))
        return "Ada"

    def pay(self, amount: int) -> int:
        self.paid.append(amount)
        return amount * 2


@pytest.fixture
def world() -> World:
    return World()


def opened(world: World, **options: Any) -> Any:
    return pyrepl3.open_session(
        config=quick(), capabilities={"pay": world.pay}, on_input=world.answer, **options
    )


def store_of(kind: str, path: Path) -> str | None:
    return {"none": None, "memory": "memory:", "sqlite": str(path / "state.db")}[kind]


@pytest.mark.parametrize("store", ["none", "memory", "sqlite"])
async def test_however_a_host_function_ends_that_is_on_record_and_it_is_not_called_again(
    tmp_path: Path, store: str
) -> None:
    called: list[str] = []

    async def cancels_itself() -> None:
        called.append("cancels_itself")
        task = asyncio.current_task()
        assert task is not None
        task.cancel("lost the connection")
        await asyncio.Event().wait()

    def asks() -> None:
        called.append("asks")
        raise KeyboardInterrupt("at the prompt")

    code = f"""
import os
told = []
for f in (cancels_itself, asks):
    try:
        await f()
    except Exception as error:
        told.append(f'{{type(error).__name__}}: {{error}}')
if not os.path.exists({str(tmp_path / "flag")!r}):
    open({str(tmp_path / "flag")!r}, 'w').close()
    os.system(f'kill -9 {{os.getpid()}}')
told
"""
    async with pyrepl3.open_session(
        "s", store=store_of(store, tmp_path), config=quick(), capabilities={"cancels_itself": cancels_itself, "asks": asks}
    ) as session:  # fmt: skip
        result = await session.execute(code)
    assert result.value == ["CancelledError: lost the connection", "KeyboardInterrupt: at the prompt"]
    assert result.attempts == 2
    assert called == ["cancels_itself", "asks"]


@pytest.mark.parametrize("store", ["none", "memory", "sqlite"])
async def test_a_cell_whose_worker_dies_is_run_again_and_the_world_is_asked_once(
    world: World, tmp_path: Path, store: str
) -> None:
    seen: list[str] = []

    def see(output: pyrepl3.Output) -> None:
        seen.append(output.data)

    async with opened(world, store=store_of(store, tmp_path), on_output=see) as session:
        await session.execute("x = [1]; y = x; import math")
        await session.execute("x.append(2)")
        result = await session.execute(DIE_ONCE.format(flag=str(tmp_path / "flag")))
        assert result.value == ["Ada", 42]
        assert result.stdout == "begun\ndone Ada\n"
        assert result.attempts == 2
        assert "SIGKILL" in result.notices[0]
        assert "".join(seen) == "begun\ndone Ada\n"
        assert (world.prompts, world.paid) == (["name? "], [21])
        assert (await session.execute("x, y is x, math.pi > 3")).value == [[1, 2], True, True]
        (report,) = session.recoveries
        assert report.cause is not None
        assert (report.cause.signal, report.cause.incarnation, report.incarnation) == (9, 1, 2)


async def test_an_idle_worker_that_dies_is_replaced_and_told_of(world: World) -> None:
    reports: asyncio.Queue[pyrepl3.Recovery] = asyncio.Queue()
    async with opened(world, on_recovery=when_back(reports.put_nowait)) as session:
        await session.execute("kept = 5")
        os.kill(session.worker.pid, signal.SIGKILL)
        report = await reports.get()
        assert report.cause is not None
        assert report.cause.running == ()
        assert (await session.execute("kept")).value == 5


async def test_workers_that_die_one_after_the_other_while_nothing_runs_are_not_replaced_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(*_: object) -> float:
        return 0.0

    monkeypatch.setattr(Backoff, "next", at_once)
    reports: asyncio.Queue[pyrepl3.Recovery] = asyncio.Queue()

    async def dies(session: pyrepl3.Session, times: int) -> None:
        for _ in range(times):
            os.kill(session.worker.pid, signal.SIGKILL)
            await reports.get()

    async with opened(world, on_recovery=when_back(reports.put_nowait)) as session:
        await dies(session, 6)
        await session.execute("x = 1")  # so it is of use, and begins anew
        await dies(session, 9)
        monkeypatch.setattr(death_policy, "IN_A_ROW", -1.0)  # as if a long time had passed
        await dies(session, 1)
        monkeypatch.setattr(death_policy, "IN_A_ROW", 3600.0)
        await dies(session, 8)
        waiting = asyncio.ensure_future(session.ping())
        os.kill(session.worker.pid, signal.SIGKILL)
        with pytest.raises(pyrepl3.WorkerDied, match="SIGKILL"):
            await waiting
        with pytest.raises(pyrepl3.WorkerDied, match=r"10 workers .* died one after the other .*SIGKILL"):
            await session.execute("1")
        assert session.state is pyrepl3.SessionState.DEAD
        await session.restart()
        await dies(session, 1)
        assert (await session.execute("1")).value == 1
    assert reports.empty()


@pytest.mark.parametrize("store", ["none", "sqlite"])
async def test_a_cell_that_kills_every_worker_is_given_up_and_leaves_no_mark(
    world: World, tmp_path: Path, store: str
) -> None:
    async with opened(world, store=store_of(store, tmp_path), max_attempts=2) as session:
        await session.execute("x = 1")
        with pytest.raises(pyrepl3.WorkerDied, match="after 2 attempts") as death:
            await session.execute(f"x = 2; {FROM_OUTSIDE}", execution_id="bad")
        assert (death.value.signal, death.value.attempts) == (9, 2)
        assert (await session.execute("x")).value == 1
        with pytest.raises(pyrepl3.WorkerDied):
            await session.execute(f"x = 2; {FROM_OUTSIDE}", execution_id="bad")
        assert session.worker.incarnation == 3


@pytest.mark.parametrize("store", ["none", "sqlite"])
@pytest.mark.parametrize("end", OWN_DOING)
async def test_a_cell_that_ends_its_own_worker_is_not_run_again_and_leaves_no_mark(
    world: World, tmp_path: Path, store: str, end: str
) -> None:
    log = tmp_path / "log"
    code = (
        f"import ctypes, os, signal, threading, time; x = 2; open({str(log)!r}, 'a').write('charged '); {end}"
    )
    async with opened(world, store=store_of(store, tmp_path)) as session:
        await session.execute("x = 1")
        with pytest.raises(pyrepl3.WorkerDied) as death:
            await session.execute(code, execution_id="bad")
        assert death.value.certificate is not None
        assert (death.value.attempts, death.value.certificate.own_doing) == (1, True)
        assert (await session.execute("x")).value == 1
        assert session.worker.incarnation == 2
    assert log.read_text() == "charged "


@pytest.mark.parametrize("store", ["none", "memory", "sqlite"])
@pytest.mark.parametrize("end", OWN_DOING)
async def test_unchecked_a_death_is_a_result_that_is_the_same_when_asked_for_again(
    tmp_path: Path, store: str, end: str
) -> None:
    code = f"import ctypes, os, signal, threading, time; print('last words'); display('a picture'); {end}"

    def opened_again() -> Any:
        return pyrepl3.open_session("s", store=store_of(store, tmp_path), config=quick())

    async with opened_again() as session:
        died = await session.execute(code, execution_id="bad", check=False)
        assert died.error is not None
        assert (died.error.kind, died.error.type, died.attempts) == ("died", "WorkerDied", 1)
        assert died.error.certificate is not None
        assert died.error.certificate.own_doing
        assert died.error.certificate.running == ("bad",)
        assert died.error.certificate.cause in str(died.error)
        assert (died.stdout, len(died.displays)) == ("last words\n", 1)
        again = await session.execute(code, execution_id="bad", check=False)
        assert (again.error, again.stdout, again.replayed) == (died.error, died.stdout, True)
        with pytest.raises(pyrepl3.WorkerDied, match=died.error.certificate.cause.split("(")[0]):
            await session.execute(code, execution_id="bad")
    if store == "sqlite":
        async with opened_again() as session:
            again = await session.execute(code, execution_id="bad", check=False)
            assert (again.error, again.stdout, again.replayed) == (died.error, died.stdout, True)
            assert len(again.displays) == 1


@pytest.mark.parametrize("store", ["none", "sqlite"])
async def test_a_death_is_on_record_where_the_session_stays_dead(tmp_path: Path, store: str) -> None:
    log = tmp_path / "log"
    begin = f"import mmap, os, signal, time; open({str(log)!r}, 'a').write('run '); print('begun')\n"
    hung = "sum(iter(int, 1))"
    hoard = (
        "held = mmap.mmap(-1, 600 << 20)\nfor at in range(0, 600 << 20, 4096): held[at] = 1\ntime.sleep(60)"
    )
    ends = ["os._exit(0)", "os.kill(os.getpid(), signal.SIGTERM)", hung, hoard]
    config = replace(quick(), confinement="limits", limits=pyrepl3.ResourceLimits(max_memory_bytes=512 << 20))
    died: dict[str, pyrepl3.ErrorInfo | None] = {}

    async def ask_again(session: pyrepl3.Session) -> None:
        for number, end in enumerate(ends):
            again = await session.execute(begin + end, execution_id=f"bad-{number}", check=False)
            assert (again.error, again.stdout, again.replayed) == (died[end], "begun\n", True), end

    async with pyrepl3.open_session(
        "s", store=store_of(store, tmp_path), config=config, recovery="none"
    ) as session:
        for number, end in enumerate(ends):
            timeout = 0.1 if end is hung else None
            first = session.start(begin + end, execution_id=f"bad-{number}", check=False, timeout=timeout)
            behind = session.start("1", check=False)
            died[end] = error = (await first).error
            assert error is not None
            assert (error.kind, error.certificate is None) == ("died", False), end
            assert (await behind).error is not None
            await session.restart()
        await ask_again(session)
    if store == "sqlite":
        for policy in ("none", "auto"):
            async with pyrepl3.open_session(
                "s", store=store_of(store, tmp_path), config=config, recovery=policy
            ) as session:
                await ask_again(session)
    assert log.read_text() == "run " * len(ends)


async def test_the_end_of_a_child_of_the_code_is_not_its_workers(world: World, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    code = f"""
import ctypes, os, signal
signal.signal(signal.SIGTERM, lambda *_: None)
if not (pid := os.fork()):
    os.kill(os.getpid(), 9)
os.waitpid(pid, 0)
os.kill(os.getpid(), signal.SIGTERM)
if not os.path.exists({flag!r}):
    open({flag!r}, 'w').close()
    ctypes.CDLL(None).kill(os.getpid(), 9)
"""
    async with opened(world) as session:
        assert (await session.execute(code)).attempts == 2


async def test_unchecked_a_death_from_outside_is_a_result_too(world: World) -> None:
    async with opened(world, max_attempts=2) as session:
        result = await session.execute(f"print('begun'); {FROM_OUTSIDE}", check=False)
        assert result.error is not None
        assert (result.error.kind, result.attempts, result.stdout) == ("died", 2, "begun\n")
        assert result.error.certificate is not None
        assert (result.error.certificate.signal, result.error.certificate.own_doing) == (9, False)


async def test_unchecked_a_death_is_a_result_where_the_session_stays_dead(world: World) -> None:
    async with opened(world, recovery="none") as session:
        executions = [session.start(code, check=False) for code in ("import os; os._exit(3)", "1")]
        for execution in executions:
            error = (await execution).error
            assert error is not None
            assert error.kind == "died"
            assert error.certificate is not None
            assert error.certificate.exit_code == 3


async def test_a_hung_cell_that_is_out_of_time_costs_its_worker_and_nothing_else(world: World) -> None:
    async with opened(world) as session:
        await session.execute("x = 1")
        with pytest.raises(pyrepl3.ExecutionTimeout, match="did not stop"):
            await session.execute("x = 2; sum(iter(int, 1))", timeout=0.1)
        assert (await session.execute("x")).value == 1


async def test_what_a_checkpoint_cannot_hold_is_made_again(world: World) -> None:
    async with opened(world) as session:
        await session.execute("numbers = (n for n in range(5)); first = next(numbers)")
        await session.execute("count = 1")
        saved = await session.checkpoint("here")
        assert [unsaved.name for unsaved in saved.unsaved] == ["numbers"]
        await session.execute("count += 1")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert (await session.execute("list(numbers), count")).value == [[1, 2, 3, 4], 2]
        assert session.recoveries[-1].lost == ()


async def test_the_policy_checkpoint_runs_nothing_again_and_says_what_is_lost(
    world: World, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with opened(world, recovery="checkpoint") as session:
        await session.execute(f"open({str(log)!r}, 'a').write('x'); gen = (i for i in [1]); next(gen)")
        await session.checkpoint("here")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert (await session.execute("'gen' in globals()")).value is False
        (report,) = session.recoveries
        assert [lost.name for lost in report.lost] == ["gen"]
        assert "gen" in str(report)
        assert log.read_text() == "x"


async def test_the_policy_replay_runs_everything_again(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with opened(world, recovery="replay") as session:
        for _ in range(2):
            await session.execute(f"open({str(log)!r}, 'a').write('x') and pay(1)")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert (await session.execute("1")).value == 1
        assert len(session.recoveries[-1].replayed) == 2
        assert log.read_text() == "xxxx"
        assert world.paid == [1, 1]


async def test_a_cell_that_hangs_when_it_is_run_again_is_told_of_and_can_be_left_out(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "flag"
    told: asyncio.Queue[logging.LogRecord] = asyncio.Queue()
    handler = QueueHandler(told)  # pyright: ignore[reportArgumentType] - has all that it uses
    monkeypatch.setattr(replay, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(logging.getLogger("pyrepl3.recovery"), "handlers", [handler])
    async with opened(world, recovery="replay") as session:
        await session.execute("x = 1")
        await session.execute(
            f"import os\ny = 2\nwhile os.path.exists({str(flag)!r}): pass", execution_id="b"
        )
        flag.touch()
        os.kill(session.worker.pid, signal.SIGKILL)
        assert "running 'b' again for 0.05 s" in (await told.get()).getMessage()
        assert await session.cancel()
        assert (await session.execute("x, y")).value == [1, 2]
        (report,) = session.recoveries
        assert [skipped.execution_id for skipped in report.skipped] == ["b"]


async def test_a_replay_that_goes_another_way_is_caught(world: World, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    code = (
        f"import os\nfirst = not os.path.exists({flag!r})\npay(1 if first else 2)\n"
        f"if first:\n    open({flag!r}, 'w').close()\n    {FROM_OUTSIDE}"
    )
    async with opened(world) as session:
        with pytest.raises(pyrepl3.ReplayDivergence, match=r"pay.*recorded.*now"):
            await session.execute(code)
        assert world.paid == [1]
        assert (await session.execute("1 + 1")).value == 2
        (tmp_path / "flag").unlink()
        error = (await session.execute(code, check=False)).error
        assert error is not None
        assert (error.kind, error.type) == ("diverged", "ReplayDivergence")
        assert "pay" in error.message


async def test_gathered_calls_are_replayed_by_their_place_and_not_their_turn(
    world: World, tmp_path: Path
) -> None:
    flag = str(tmp_path / "flag")
    code = (
        "import asyncio, os\n"
        f"first = not os.path.exists({flag!r})\n"
        "async def work(n):\n"
        "    await asyncio.sleep(0.01 * (n if first else 3 - n))\n"
        "    return await pay(n) + await pay(10 * n)\n"
        "sums = await asyncio.gather(*(work(n) for n in range(3)))\n"
        f"if first:\n    open({flag!r}, 'w').close()\n    {FROM_OUTSIDE}\n"
        "sums"
    )
    async with opened(world) as session:
        assert (await session.execute(code)).value == [0, 22, 44]
        assert sorted(world.paid) == [0, 0, 1, 2, 10, 20]


@pytest.mark.parametrize("store", ["none", "memory", "sqlite"])
async def test_an_execution_id_runs_once(world: World, tmp_path: Path, store: str) -> None:
    async with opened(world, store=store_of(store, tmp_path)) as session:
        code = "print('hi'); pay(1)"
        first = await session.execute(code, execution_id="step")
        again = await session.execute(code, execution_id="step")
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.value, again.stdout) == (2, "hi\n")
        assert world.paid == [1]
        with pytest.raises(pyrepl3.ExecutionIdConflict):
            await session.execute("pay(2)", execution_id="step")
        bridge = session.bridge
        assert (bridge is None) == (store == "none")
        if bridge is not None:
            assert (bridge.pending, bridge.high_water, bridge.submissions) == (0, 1, 1)


async def test_a_session_goes_on_where_it_was_closed(world: World, tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    async with opened(world, session_id="analysis-7", store=store) as session:
        await session.execute("x = [1]; y = x")
        await session.execute("pay(1)", execution_id="step-2")
        with pytest.raises(pyrepl3.StoreError, match="owned by"):
            async with opened(world, session_id="analysis-7", store=store):
                pass
    async with opened(world, session_id="analysis-7", store=store) as session:
        assert (await session.execute("pay(1)", execution_id="step-2")).replayed
        assert (await session.execute("x, y is x")).value == [[1], True]
        assert world.paid == [1]


@pytest.mark.parametrize("store", ["none", "memory", "sqlite"])
async def test_a_restart_ends_also_what_is_not_on_record_yet(
    world: World, tmp_path: Path, store: str
) -> None:
    async with opened(world, store=store_of(store, tmp_path)) as session:
        executions = [session.start(f"x{n} = {n}", execution_id=f"e{n}") for n in range(3)]
        await session.restart()
        for execution in executions:
            with pytest.raises(pyrepl3.WorkerDied, match="restarted"):
                await execution.result()
        assert (await session.execute("[n for n in globals() if n.startswith('x')]")).value == []


async def test_a_cancel_ends_also_what_is_not_on_record_yet(world: World, tmp_path: Path) -> None:
    async with opened(world, store=tmp_path / "state.db") as session:
        first, second = session.start("1", execution_id="a"), session.start("2", execution_id="b")
        await second.cancel()
        with pytest.raises(pyrepl3.ExecutionCancelled):
            await second.result()
        assert (await first.result()).value == 1
        with pytest.raises(pyrepl3.ExecutionCancelled) as again:
            await session.execute("2", execution_id="b")
        assert again.value.result.replayed


async def test_a_restart_right_after_an_opening_empties_the_session_for_good(
    world: World, tmp_path: Path
) -> None:
    store = tmp_path / "state.db"
    async with opened(world, session_id="s", store=store) as session:
        await session.execute("kept = 1")
    async with opened(world, session_id="s", store=store) as session:
        await session.restart()
    async with opened(world, session_id="s", store=store) as session:
        assert (await session.execute("'kept' in globals()")).value is False


async def test_the_policy_checkpoint_saves_the_last_of_many_quick_cells(world: World) -> None:
    async with opened(world, recovery="checkpoint") as session:
        for n in range(20):
            await session.execute(f"v = {n}")
        await session.checkpoint("behind the automatic ones")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert (await session.execute("v")).value == 19
        assert session.recoveries[-1].skipped == ()


PARENT = """
import asyncio, sys
import pyrepl3_client as pyrepl3

CODE = "print('asking', flush=True); name = input('name? '); done = pay(7); input('wait? '); (name, done)"
hold = sys.argv[2] == "hold"

def answer(prompt):
    with open(sys.argv[3], "a") as log:
        log.write(f"asked {prompt}\\n")
    if prompt == "wait? " and hold:
        print("holding", flush=True)
        import time
        time.sleep(600)
    return "Ada"

def pay(amount):
    with open(sys.argv[3], "a") as log:
        log.write(f"paid {amount}\\n")
    return amount * 2

async def main():
    async with pyrepl3.open_session(
        "s", store=sys.argv[1], capabilities={"pay": pay}, on_input=answer
    ) as session:
        if hold:
            await session.execute("x = 5", execution_id="one")
        result = await session.execute(CODE, execution_id="two")
        print(result.value, result.attempts, (await session.execute("x")).value, flush=True)

asyncio.run(main())
"""


async def test_a_killed_parent_is_succeeded_by_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", PARENT, str(tmp_path / "state.db")]
    first = subprocess.Popen(  # noqa: ASYNC220 - a parent that is killed; its pipe is read once
        [*command, "hold", str(log)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "holding\n"
    first.kill()
    first.wait()
    first.stdout.close()
    second = await asyncio.to_thread(
        subprocess.run, [*command, "go", str(log)], capture_output=True, text=True, check=False
    )
    assert second.stdout == "['Ada', 14] 2 5\n", second.stderr
    asked: Callable[[str], int] = log.read_text().splitlines().count
    assert (asked("asked name? "), asked("paid 7"), asked("asked wait? ")) == (1, 1, 2)
