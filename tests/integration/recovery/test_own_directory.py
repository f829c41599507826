"""A session's own work directory comes back with its names; any other is left alone."""

import os
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig
from pyrepl3_client._launch.process_tree import kill_all

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

OWN = WorkerConfig(cwd="own")
STRICT = WorkerConfig(confinement="strict", close_grace=2.0)
WRITE = """
import os, pathlib
pathlib.Path('kept.txt').write_text('one')
os.makedirs('pack'); pathlib.Path('pack/mine.py').write_text('VALUE = 41\\n')
"""
CHANGE = """
pathlib.Path('kept.txt').write_text('two')
pathlib.Path('later.txt').write_text('after the checkpoint')
"""
LOOK = "sorted(str(p) for p in pathlib.Path().glob('*.txt')), pathlib.Path('kept.txt').read_text()"


def kill(session: pyrepl3.Session) -> None:
    """Kill the session's worker, and what stands below it: under strict that runs a cell for a moment more."""
    kill_all([session.worker.pid])


@pytest.mark.parametrize("config", [OWN, STRICT], ids=["own", "strict"])
async def test_files_come_back_with_the_names(config: WorkerConfig) -> None:
    async with pyrepl3.open_session(config=config, recovery="checkpoint") as session:
        await session.execute(WRITE)
        await session.execute("import sys; sys.path.insert(0, os.getcwd()); from pack.mine import VALUE")
        saved = await session.checkpoint()
        assert not saved.unsaved
        await session.execute(CHANGE)
        await session.restore(saved.checkpoint_id)
        assert (await session.execute(LOOK)).value == [["kept.txt"], "one"]
        await session.checkpoint()
        kill(session)
        assert (await session.execute(LOOK)).value == [["kept.txt"], "one"]
        assert (await session.execute("VALUE")).value == 41
        assert not session.recoveries[-1].lost


async def test_cells_that_run_again_begin_with_what_there_was(tmp_path: Path) -> None:
    async with pyrepl3.open_session("s", config=OWN, recovery="replay") as session:
        await session.execute("import os; n = len(os.listdir()); open('log', 'a').write('x')")
        kill(session)
        assert (await session.execute("n, open('log').read()")).value == [0, "x"]
        await session.restart()
        assert (await session.execute("import os; os.listdir()")).value == []


async def test_a_temporary_one_goes_with_its_session() -> None:
    async with pyrepl3.open_session(config=OWN) as session:
        where = (await session.execute("import os; open('file', 'w').close(); os.getcwd()")).value
        assert os.path.isdir(where)  # noqa: ASYNC240 - a moment
        assert where != os.getcwd()
    assert not os.path.exists(where)  # noqa: ASYNC240 - a moment


async def test_one_beside_a_store_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    async with pyrepl3.open_session("a/b", store=store, config=OWN) as session:
        await session.execute(WRITE)
        where = Path((await session.execute("os.getcwd()")).value)
        assert where.parent == tmp_path / "s.db-work"
    async with pyrepl3.open_session("..", store=store, config=OWN) as other:
        assert (await other.execute("import os; os.listdir()")).value == []
    (where / "kept.txt").unlink()
    async with pyrepl3.open_session("a/b", store=store, config=OWN) as session:
        assert (await session.execute(LOOK)).value == [["kept.txt"], "one"]


async def test_a_removed_one_is_made_again() -> None:
    async with pyrepl3.open_session(config=OWN) as session:
        await session.execute("import os, shutil; x = 1; shutil.rmtree(os.getcwd())")
        await session.checkpoint()
        kill(session)
        assert (await session.execute("x, os.listdir()")).value == [1, []]


async def test_any_other_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("before")
    async with pyrepl3.open_session(config=WorkerConfig(cwd=str(tmp_path)), recovery="checkpoint") as session:
        await session.execute("x = 1")
        saved = await session.checkpoint()
        await session.execute("open('theirs', 'w').write('after'); open('new', 'w').close()")
        await session.restore(saved.checkpoint_id)
        kill(session)
        assert (await session.execute("x")).value == 1
    assert (tmp_path / "theirs").read_text() == "after"
    assert (tmp_path / "new").exists()


def test_what_cannot_be_promised_is_refused() -> None:
    with pytest.raises(ValueError, match="confinement_required=True"):
        WorkerConfig(cwd="own", confinement="strict", confinement_required=False)
