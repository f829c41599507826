"""`max_store_bytes`: what a session may put on record, what is said where that ends, and what goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

KIB = 1024


def bounded(max_store_bytes: int) -> pyrepl3.WorkerConfig:
    return pyrepl3.WorkerConfig(max_store_bytes=max_store_bytes, close_grace=1.0)


@pytest.fixture(params=["memory:", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "state.db") if request.param == "file" else request.param


async def fill(session: pyrepl3.Session) -> int:
    """Run cells until one has no room; return how many have run."""
    done = 0
    with pytest.raises(pyrepl3.StoreFull) as full:  # noqa: PT012 - it is the first one without room
        while done < 1000:
            assert (await session.execute(f"done = {done}; {done}", execution_id=f"e{done}")).value == done
            done += 1
    for part in ("'s'", "max_store_bytes", "131,072", f"'e{done}'"):
        assert part in str(full.value)
    return done


async def test_cells_fill_the_record_and_nothing_acknowledged_is_lost(store: str) -> None:
    async with pyrepl3.open_session(
        "s", store=store, config=bounded(128 * KIB), recovery="replay"
    ) as session:
        done = await fill(session)
        assert 20 < done < 64
        # What was refused was not run, and what is on record still stands.
        with pytest.raises(pyrepl3.StoreFull):
            await session.execute("done = -1")
        assert (await session.variables())["done"].repr == str(done - 1)
        again = await session.execute("done = 0; 0", execution_id="e0")
        assert again.replayed
        assert (await session.execute(f"done = {done - 1}; {done - 1}", execution_id=f"e{done - 1}")).replayed
        await session.restart()
        assert (await session.variables()) == {}
    if store == "memory:":
        return
    async with pyrepl3.open_session("s", store=store, config=bounded(128 * KIB)) as session:
        assert (await session.execute("done = 0; 0", execution_id="e0")).replayed
        with pytest.raises(pyrepl3.StoreFull):
            await session.execute("1")
    # The remedy that the error names.
    async with pyrepl3.open_session("s", store=store, config=bounded(256 * KIB)) as session:
        assert (await session.execute("1 + 1")).value == 2


async def test_an_outcome_without_room_is_an_error_by_name_and_its_cell_is_not_run_again(store: str) -> None:
    calls: list[int] = []
    offered = {"count": calls.append}
    async with pyrepl3.open_session(
        "s", store=store, config=bounded(128 * KIB), capabilities=offered, recovery="none"
    ) as session:
        code = "count(1); kept = 5; 'x' * 200_000"
        for _ in range(2):
            with pytest.raises(
                pyrepl3.StoreFull, match=r"outcome of execution 'big', which ran to its end.*400,"
            ):
                await session.execute(code, execution_id="big")
        assert calls == [1]
        assert (await session.execute("kept")).value == 5


async def test_a_checkpoint_without_room_leaves_the_one_before(store: str) -> None:
    async with pyrepl3.open_session("s", store=store, config=bounded(256 * KIB)) as session:
        await session.execute("import os; small = os.urandom(50_000)[:1]")
        await session.checkpoint("first")
        await session.execute("large = os.urandom(400_000); del small")
        with pytest.raises(pyrepl3.StoreFull, match="checkpoint 'second'"):
            await session.checkpoint("second")
        await session.execute("del large")
        await session.checkpoint("second")  # in the place of nothing: what had no room is not there
        await session.restore("first")
        assert (await session.execute("len(small)")).value == 1


async def test_texts_are_recorded_as_far_as_there_is_room(tmp_path: Path) -> None:
    store = tmp_path / "state.db"
    async with pyrepl3.open_session("s", store=store, config=bounded(1200 * KIB), recovery="none") as session:
        await session.execute("print('x' * 3_000_000)", execution_id="long")
        assert (await session.execute("1 + 1")).value == 2
    with closing(sqlite3.connect(store)) as database:
        (recorded,) = database.execute("SELECT sum(size) FROM texts").fetchone()
    assert 256 * KIB < recorded < 1200 * KIB
    async with pyrepl3.open_session("s", store=store, config=bounded(1200 * KIB)) as session:
        with pytest.raises(pyrepl3.OutputNotKept, match="max_store_bytes"):
            await session.output("long", 2_900_000)


def test_a_bound_that_is_none() -> None:
    with pytest.raises(ValueError, match="max_store_bytes must be None, or at least 65536, not 5"):
        pyrepl3.WorkerConfig(max_store_bytes=5)
    assert pyrepl3.WorkerConfig().max_store_bytes is None
    assert pyrepl3.WorkerConfig.untrusted().max_store_bytes == 6 * 1024**3
