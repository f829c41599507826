"""Files of the code's folder that are named like modules of the standard library break nothing of the worker."""

import _imp  # pyright: ignore[reportMissingModuleSource]
import sys
from decimal import Decimal
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3

pytestmark = pytest.mark.anyio

LOADED_BEFORE = "import sys; early = sorted(sys.modules.keys() & sys.stdlib_module_names)"
"""What a worker has loaded before any code runs, the code's imports find as it is, in every Python."""
OWN = """\
import importlib
wrong = [name for name in names if vars(importlib.import_module(name)).get("__file__") != f"{folder}/{name}.py"]
wrong
"""
NAMES = {name for name in sys.stdlib_module_names - set(sys.builtin_module_names) if not _imp.is_frozen(name)}
"""What is part of the interpreter's program is found there first, in every Python."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file for every module of the standard library."""
    for name in sys.stdlib_module_names:
        (tmp_path / f"{name}.py").write_text("mine = 1\n")
    return tmp_path


async def use_everything(session: pyrepl3.Session) -> None:
    """Have the worker import what it imports late, at the least."""
    await session.set(price=Decimal("1.5"))
    assert await session.get("price") == Decimal("1.5")
    failed = await session.execute("for x in 1:\n    prnt(x)", check=False)
    assert failed.error is not None
    assert failed.error.kind == "exception"
    assert (await session.execute("print 5", check=False)).error is not None
    await session.execute("display({'text/plain': 'x'}, raw=True)")
    assert (await session.complete("pri")).matches
    assert (await session.inspect("print")).found
    assert (await session.is_complete("def f():")).status == "incomplete"
    assert "price" in await session.variables()
    assert (await session.execute("def f(a: int = 3): return a\nf()")).value == 3
    assert (await session.inspect("f")).source
    assert (await session.execute("while True: pass", timeout=0.1, check=False)).error is not None
    assert (await session.execute("import asyncio; await asyncio.to_thread(int, '3')")).value == 3


@pytest.mark.parametrize("confinement", ["limits", "strict"])
@pytest.mark.parametrize("first", ["the code's", "the worker's"])
async def test_every_standard_name_may_be_a_file_of_the_code(
    folder: Path, confinement: str, first: str
) -> None:
    sandbox = pyrepl3.SandboxPolicy(readable=(str(folder),) if confinement == "strict" else ())
    config = pyrepl3.WorkerConfig(cwd=str(folder), confinement=confinement, sandbox=sandbox)  # pyright: ignore[reportArgumentType] - one of its words
    async with pyrepl3.open_session(config=config) as session:
        early = set((await session.execute(LOADED_BEFORE)).value)
        await session.set(names=sorted(NAMES - early), folder=str(folder))
        if first == "the code's":
            assert (await session.execute(OWN)).value == []
        await use_everything(session)
        await session.execute("import pickle, platform; pickle.more = 2")
        assert (await session.checkpoint("c")).unsaved == []
        assert (await session.execute(OWN)).value == []
        assert (await session.execute("pickle.mine, pickle.more")).value == [1, 2]
        await session.restart()
        restored = await session.restore("c")
        assert restored.unsaved == []
        assert (await session.execute("pickle.mine, platform.__file__ == folder + '/platform.py'")).value == [
            1,
            True,
        ]
        assert (await session.execute(OWN)).value == []
        assert (await session.checkpoint("d")).unsaved == []


async def test_a_file_that_comes_to_stand_in_the_way_later(tmp_path: Path) -> None:
    config = pyrepl3.WorkerConfig(cwd=str(tmp_path))
    async with pyrepl3.open_session(config=config) as session:
        await session.execute("from pathlib import Path; _ = Path('pickle.py').write_text('mine = 1')")
        await session.execute("_ = Path('platform.py').write_text('mine = 1')\nimport pickle")
        assert (await session.checkpoint()).unsaved == []
        assert (await session.execute("import platform; platform.mine, pickle.mine")).value == [1, 1]
