"""`In`, `Out` and the numbering of cells, after the worker has died or a checkpoint was restored."""

import os
import signal
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

CELLS = (
    "x = [1]; x",
    "'a' * 300",
    "import threading; lock = threading.Lock(); lock",
    "{'x': x}",
    "None",
    "1 / 0",
    "globals()",
    "import math; math",
    "x",
)
LOOK = (
    "(len(In), In[1:-1], _i, _ii, _iii, sorted(Out), Out[1] is x, _ is x, __ is math, ___ is globals(),"
    " Out[4]['x'] is x, Out[2], Out[3] is lock)"
)


async def looked_at(store: Path | None, death: str, *, recovery: pyrepl3.RecoveryPolicy = "auto") -> object:
    async with pyrepl3.open_session(config=quick(), store=store, recovery=recovery) as session:
        for number, code in enumerate(CELLS, 1):
            await session.execute(code, check=False)
            if death == f"after {number}":
                os.kill(session.worker.pid, signal.SIGKILL)
            if death == f"checkpoint {number}":
                await session.checkpoint("here")
        if death.startswith("checkpoint"):
            os.kill(session.worker.pid, signal.SIGKILL)
        return await value(session, LOOK)


@pytest.mark.parametrize("store", ["none", "sqlite"])
@pytest.mark.parametrize("death", ["after 4", "after 9", "checkpoint 3", "checkpoint 9"])
async def test_the_history_is_as_in_an_undisturbed_session(tmp_path: Path, store: str, death: str) -> None:
    where = tmp_path / "state.db" if store == "sqlite" else None
    assert await looked_at(where, death) == await looked_at(None, "none")


async def test_what_a_cell_gave_and_cannot_be_saved_is_named() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("__import__('threading').Thread()")
        await session.execute("5")
        saved = await session.checkpoint("here")
        assert [unsaved.name for unsaved in saved.unsaved] == ["Out[1]"]
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "(_, __, 1 in Out, len(In))") == [5, "", False, 4]
        assert [lost.name for lost in session.recoveries[-1].lost] == ["Out[1]"]


async def test_last_results_that_the_code_has_bound_itself_stay_its_own() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        await session.execute("_ = lambda text: 'T' + text; Out = 'mine'; None")
        await session.execute("5")
        await session.checkpoint("here")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "_('a'), Out, len(In)") == ["Ta", "mine", 4]
        await session.execute("del _")
        assert await value(session, "7") == 7
        assert await value(session, "_") == 7


async def test_a_long_history_is_bounded_and_its_numbers_stay(tmp_path: Path) -> None:
    async with pyrepl3.open_session(config=quick(), store=tmp_path / "state.db") as session:
        await session.execute("In.extend(f'cell {n}' for n in range(2, 10_002)); None")
        await session.execute("for n in range(1100): Out[n] = n")
        await session.checkpoint("here")
        os.kill(session.worker.pid, signal.SIGKILL)
        found = await value(session, "[len(In), In[5000], In[10_001], len(Out), min(Out), Out[1099]]")
        assert found == [10_004, "cell 5000", "cell 10001", 1000, 100, 1099]


@pytest.mark.parametrize("store", ["none", "sqlite"])
async def test_a_restore_that_was_asked_for_leaves_it_as_it_is(tmp_path: Path, store: str) -> None:
    where = tmp_path / "state.db" if store == "sqlite" else None
    async with pyrepl3.open_session(config=quick(), store=where) as session:
        await session.execute("x = 1")
        await session.checkpoint("here")
        await session.execute("x = 2; x")
        await session.restore("here")
        assert await value(session, "[x, In[1:]]") == [1, ["x = 1", "x = 2; x", "[x, In[1:]]"]]
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "[x, In[1:3], Out[2]]") == [1, ["x = 1", "x = 2; x"], 2]
