"""What a session that comes back tells: what is lost, what was made again, what was not run again."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._session import death_policy
from pyrepl3_schemas.lifecycle import SessionState
from tests.helpers.real_sessions import PATIENCE, quick, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

STUBBORN = """
import threading
lock, rounds = threading.Lock(), 0
try:
    while True:
        rounds += 1
        rounds -= 1
except BaseException:
    print('stopped')
"""


def opened(**options: Any) -> Any:
    return pyrepl3.open_session(config=options.pop("config", quick()), **options)


def kill(session: pyrepl3.Session) -> None:
    os.kill(session.worker.pid, signal.SIGKILL)


async def value(session: pyrepl3.Session, code: str) -> Any:
    with anyio.fail_after(PATIENCE):
        return (await session.execute(code)).value


@pytest.mark.parametrize("policy", ["auto", "checkpoint"])
async def test_what_the_last_cell_before_a_close_has_made_is_there_again(tmp_path: Path, policy: Any) -> None:
    """A checkpoint may be under way then."""
    for round_number in range(1, 4):
        async with opened(session_id="s", store=str(tmp_path / "state.db"), recovery=policy) as session:
            assert await value(session, "n = globals().get('n', 0) + 1; n") == round_number


@pytest.mark.parametrize("reason", ["interrupt", "cancelled", "timeout"])
@pytest.mark.parametrize("policy", ["auto", "replay"])
async def test_a_cell_that_swallows_its_stop_is_not_run_again(policy: Any, reason: Any) -> None:
    """Nobody would stop it then."""
    async with opened(recovery=policy) as session:
        stubborn = session.start(STUBBORN, timeout=0.2 if reason == "timeout" else None)
        if reason != "timeout":
            await running(session, stubborn)
            await stubborn.cancel(reason)
        assert "stopped" in (await stubborn.result()).stdout
        kill(session)
        assert await value(session, "1") == 1
        assert session.recoveries[-1].replayed == ()


async def test_a_session_that_died_while_it_came_back_says_so_to_whoever_comes_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(death_policy, "MAX_IDLE_DEATHS", 1)
    async with opened() as session:
        kill(session)
        while session.state is SessionState.READY:  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0)
        for _ in range(3):
            with anyio.fail_after(PATIENCE), pytest.raises(pyrepl3.WorkerDied):
                await session.execute("1")
        await session.restart()
        assert await value(session, "2") == 2


async def test_a_handler_of_recoveries_may_ask_the_session() -> None:
    told: asyncio.Queue[set[str]] = asyncio.Queue()

    async def on_recovery(recovery: pyrepl3.Recovery) -> None:
        if recovery.progress is None:
            told.put_nowait(set(await session.variables()))

    async with opened(on_recovery=on_recovery) as session:
        await session.execute("kept = 5")
        kill(session)
        with anyio.fail_after(PATIENCE):
            assert await told.get() == {"kept"}
        assert (await session.ping()).queue == 0


async def test_a_namespace_that_is_too_large_for_a_checkpoint_costs_no_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = pyrepl3.WorkerConfig(max_checkpoint_bytes=100_000)
    async with opened(config=config, recovery="checkpoint") as session:
        await session.execute(f"import os\nbig = os.urandom(200_000); open({str(log)!r}, 'a').write('x')")
        with pytest.raises(pyrepl3.StoreError, match="max_checkpoint_bytes"):
            await session.checkpoint("large")
        notices = (await session.execute("1")).notices
        assert "more than 100,000 bytes" in notices[0]
        await session.execute("del big; kept = 1")
        await session.checkpoint("small")
        assert session.worker.incarnation == 1
        kill(session)
        assert await value(session, "kept, 'big' in globals()") == [1, False]
        assert log.read_text() == "x"


async def test_what_is_made_again_is_told_with_what_it_has_missed() -> None:
    async with opened() as session:
        await session.execute("import threading\nlock = threading.Lock(); seen = []", execution_id="maker")
        await session.execute("lock.acquire()")
        await session.checkpoint("here")
        kill(session)
        result = await session.execute("lock.locked()")
        assert result.value is False
        assert session.recoveries[-1].remade == (("lock", "maker"),)
        assert "lock by maker" in "\n".join(result.notices)


async def test_what_is_made_again_is_of_the_class_that_is_there() -> None:
    async with opened() as session:
        await session.execute(
            "import threading\nclass Account:\n    def __init__(self): self.lock = threading.Thread()"
        )
        await session.execute("account = Account(); other = 1")
        await session.checkpoint("here")
        kill(session)
        assert await value(session, "isinstance(account, Account), type(account) is Account, other") == [
            True,
            True,
            1,
        ]


@pytest.mark.parametrize("store", [False, True])
async def test_what_a_checkpoint_holds_and_cannot_give_back_is_made_again(
    tmp_path: Path, store: bool
) -> None:
    flag = tmp_path / "flag"
    async with opened(session_id="s", store=str(tmp_path / "state.db") if store else "memory:") as session:
        await session.execute(
            "import os\nclass Fragile:\n    def __init__(self, text): self.text = text\n"
            f"    def __setstate__(self, state):\n        if os.path.exists({str(flag)!r}): raise OSError('broken')\n"
            "        self.__dict__.update(state)"
        )
        await session.execute("fragile = Fragile('one'); fragile")
        await session.execute("fragile.text = 'two'; solid = [fragile.text]")
        await session.checkpoint("here")
        flag.touch()
        kill(session)
        assert await value(session, "fragile.text, solid, type(fragile) is Fragile") == ["one", ["two"], True]
        report = session.recoveries[-1]
        assert [lost.name for lost in report.lost] == ["Out[2]"]
        assert [name for name, _ in report.remade] == ["fragile"]


async def test_what_fails_when_it_is_run_again_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("5")
    async with opened(recovery="replay") as session:
        await session.execute(f"data = open({str(path)!r}).read()", execution_id="reads")
        with pytest.raises(pyrepl3.ExecutionFailed):
            await session.execute("1 / 0", execution_id="fails")
        path.unlink()
        kill(session)
        assert await value(session, "'data' in globals()") is False
        (skipped,) = session.recoveries[-1].skipped
        assert skipped.execution_id == "reads"
        assert "FileNotFoundError" in skipped.reason


async def test_what_a_stopped_cell_had_done_is_told_to_be_gone(tmp_path: Path) -> None:
    async with opened(session_id="s", store=str(tmp_path / "state.db"), recovery="replay") as session:
        with pytest.raises(pyrepl3.ExecutionTimeout):
            await session.execute("n = 1\nwhile True: pass", timeout=0.1, execution_id="long")
        kill(session)
        assert await value(session, "'n' in globals()") is False
        assert [skipped.execution_id for skipped in session.recoveries[-1].skipped] == ["long"]


async def test_the_names_of_what_is_left_out_are_told(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("5")
    async with opened(recovery="replay") as session:
        code = f"import json as parser\nwith open({str(path)!r}) as file: data = parser.load(file)"
        await session.execute(f"{code}\nclass Reader: pass", execution_id="reads")
        path.unlink()
        kill(session)
        result = await session.execute("'data' in globals()")
        assert result.value is False
        (skipped,) = session.recoveries[-1].skipped
        assert skipped.names == ("Reader", "data", "file", "parser")
        assert "it binds Reader, data, file, parser" in result.notices[0]


async def test_no_cell_from_before_a_restart_makes_anything_again(tmp_path: Path) -> None:
    async with opened(session_id="s", store=str(tmp_path / "state.db")) as session:
        await session.execute("import threading\nlock = threading.Thread()")
        await session.restart()
        await session.execute("import threading\nglobals().update(lock=threading.Thread()); kept = 1")
        await session.checkpoint("here")
        kill(session)
        assert await value(session, "kept, 'lock' in globals()") == [1, False]
        assert [lost.name for lost in session.recoveries[-1].lost] == ["lock"]


@pytest.mark.parametrize("policy", ["auto", "checkpoint"])
async def test_a_checkpoint_that_another_python_has_left_is_done_without_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    store = str(tmp_path / "state.db")
    async with opened(session_id="s", store=store, recovery=policy) as session:
        await session.execute("x = 41", execution_id="one")
        await session.checkpoint("here")
    from pyrepl3_client._session.checkpoints import CheckpointScheduler

    async def restore(*_: object, **__: object) -> None:
        raise pyrepl3.ProtocolError("it was taken by Python 2.7", None)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointScheduler, "restore", restore)
        async with opened(session_id="s", store=store, recovery=policy) as session:
            (report,) = session.recoveries
            assert "Python 2.7" in report.skipped[0].reason
            assert report.replayed == (("one",) if policy == "auto" else ())
            # Newer than the other, though nothing has run.
            await session.checkpoint("fresh")
    async with opened(session_id="s", store=store, recovery=policy) as session:
        assert await value(session, "globals().get('x')") == (41 if policy == "auto" else None)
        if policy == "checkpoint":
            (name,) = [name for name in await checkpoints(session) if "unread" in name]
            await session.restore(name)
            assert await value(session, "x") == 41


async def test_closing_as_often_as_one_likes_costs_a_waiting_cell_nothing(tmp_path: Path) -> None:
    """It waits for a person, who may be slow."""

    async def nobody(prompt: str) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    def says_yes(prompt: str) -> str:
        return "yes"

    store = str(tmp_path / "state.db")
    for _ in range(3):
        asked = asyncio.Event()
        async with opened(session_id="s", store=store, on_input=nobody, max_attempts=2) as session:
            approval = session.start("approved = input('approve? ')\napproved", execution_id="approval")
            with anyio.fail_after(PATIENCE):
                await asked.wait()
            del approval
    async with opened(session_id="s", store=store, on_input=says_yes, max_attempts=2) as session:
        approval = session.start("approved = input('approve? ')\napproved", execution_id="approval")
        with anyio.fail_after(PATIENCE):
            assert (await approval.result()).value == "yes"


async def checkpoints(session: pyrepl3.Session) -> list[str]:
    with pytest.raises(ValueError, match="there are") as caught:
        await session.restore("no such")
    return [part.strip().strip("'") for part in str(caught.value).partition("there are: ")[2].split("', '")]


SLOW = """
import time
ran = globals().get('ran', 0) + 1
class Table:
    def __getstate__(self):
        while self.rows > 1: time.sleep(0.01)
        return {'rows': self.rows}
table, count = Table(), 1
table.rows = 1
"""


@pytest.mark.parametrize("policy", ["auto", "checkpoint"])
async def test_what_could_not_be_saved_in_time_comes_back_as_it_was_saved_last(policy: Any) -> None:
    async with opened(recovery=policy) as session:
        await session.execute(SLOW)
        assert (await session.checkpoint()).unsaved == []
        await session.execute("table.rows, count = 2, 2")
        saved = await session.checkpoint()
        assert [(each.name, each.as_of) for each in saved.unsaved] == [("table", 1)]
        assert saved.unsaved[0].reason.endswith(" s; it keeps its value as of cell 1")
        kill(session)
        result = await session.execute("table.rows, count, ran")
        assert result.value == [1, 2, 1]
        report = session.recoveries[-1]
        assert [each.name for each in report.outdated] == ["table"]
        assert (report.lost, report.remade) == ((), ())
        assert "with earlier values, since they could not be saved in time: table (as of cell 1)" in str(
            report
        )
        assert result.notices == (str(report),)


@pytest.mark.parametrize(
    ("end", "workers", "often"),
    [("os._exit(3)", 1, ""), ("ctypes.CDLL(None).kill(os.getpid(), 9)", 2, " 2 times")],
)
async def test_a_cell_that_ends_its_worker_when_run_again_costs_one_by_its_own_doing(
    tmp_path: Path, end: str, workers: int, often: str
) -> None:
    flag = tmp_path / "flag"
    async with opened(recovery="replay", max_attempts=2) as session:
        await session.execute("x = 1")
        code = f"import ctypes, os\nif os.path.exists({str(flag)!r}): {end}"
        await session.execute(code, execution_id="bad")
        flag.touch()
        kill(session)
        assert await value(session, "x") == 1
        assert session.worker.incarnation == 2 + workers
        report = session.recoveries[-1]
        assert [(each.execution_id, each.reason) for each in report.skipped] == [
            ("bad", f"it ended its worker{often} when run again")
        ]
