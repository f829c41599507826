"""The level on record: what strict code has saved is loaded at a weaker level by its owner's word alone."""

import os
import shutil
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from tests.confinement.sessions import run, strict_config, value
from tests.confinement.test_levels import forbid_namespaces

pytestmark = pytest.mark.anyio

LIMITS = pyrepl3.WorkerConfig(close_grace=2.0)
MARK = "it ran outside"
PLANT = """
class Planted:
    def __reduce__(self):
        code = "open({path!r}, 'w').write({mark!r}) if __import__('os').path.isdir({folder!r}) else 0"
        return eval, (code,)
planted = Planted()
kept = 'kept'
"""
"""Saves a value whose restore writes a file wherever its folder can be seen."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def plant(store: Path) -> Path:
    """Leave a strict session whose checkpoint runs code; return the file that it writes unconfined."""
    mark = store.with_name("mark")
    async with pyrepl3.open_session("s", store=store, config=strict_config()) as session:
        code = PLANT.format(path=str(mark), folder=str(store.parent), mark=MARK)
        assert (await run(session, code)).error is None
        await session.checkpoint()
    return mark


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_a_strict_session_is_opened_weaker_by_a_word_alone(store: Path) -> None:
    mark = await plant(store)
    copy = store.with_name("copy.db")
    shutil.copy(store, copy)
    before = children()
    with pytest.raises(pyrepl3.WeakerConfinement) as refused:
        async with pyrepl3.open_session("s", store=store, config=LIMITS):
            raise AssertionError
    text = str(refused.value)
    for part in ("'s'", "confinement='strict'", "confinement='limits'", "allow_weaker_confinement=True"):
        assert part in text
    assert isinstance(refused.value, pyrepl3.StoreError)
    assert children() == before
    assert not mark.exists()
    # Nothing is lost, and it has no owner: the strict one has it at once.
    async with pyrepl3.open_session("s", store=store, config=strict_config()) as session:
        assert await value(session, "kept") == "kept"
    assert not mark.exists()
    # The differential: where the word is given it runs.
    async with pyrepl3.open_session("s", store=copy, config=LIMITS, allow_weaker_confinement=True) as session:
        assert await value(session, "kept") == "kept"
    assert mark.read_text() == MARK


async def test_the_word_is_for_what_runs_from_then_on(store: Path) -> None:
    async with pyrepl3.open_session("s", store=store, config=strict_config()) as session:
        await value(session, "x = 1")
    async with pyrepl3.open_session("s", store=store, config=LIMITS, allow_weaker_confinement=True):
        pass
    # It has run at that level by now.
    async with pyrepl3.open_session("s", store=store, config=LIMITS) as session:
        assert await value(session, "x") == 1
    # And each stronger level is taken at once, and counts from then on.
    async with pyrepl3.open_session("s", store=store, config=strict_config()) as session:
        assert await value(session, "x") == 1
    with pytest.raises(pyrepl3.WeakerConfinement, match="confinement='none'"):
        await pyrepl3.open_session("s", store=store, config=pyrepl3.WorkerConfig(confinement="none"))


async def test_a_strict_start_that_fails_leaves_the_level_as_it_was(store: Path) -> None:
    async with pyrepl3.open_session("s", store=store, config=LIMITS) as session:
        await value(session, "x = 1")
    with pytest.raises(pyrepl3.SpawnError):
        await pyrepl3.open_session("s", store=store, config=strict_config(warm=("no_such_module",)))
    async with pyrepl3.open_session("s", store=store, config=LIMITS) as session:
        assert await value(session, "x") == 1


async def test_a_machine_that_keeps_less_needs_the_word_too(
    store: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = await plant(store)
    degraded = strict_config(confinement_required=False)
    with monkeypatch.context() as patch:
        forbid_namespaces(patch, work)
        with pytest.raises(pyrepl3.WeakerConfinement, match="confinement_required=False"):
            await pyrepl3.open_session("s", store=store, config=degraded)
        assert not mark.exists()
        async with pyrepl3.open_session("new", store=store, config=degraded) as session:
            await value(session, "x = 1")
    async with pyrepl3.open_session("s", store=store, config=strict_config()) as session:
        assert await value(session, "kept") == "kept"
    # What ran degraded is on record as that.
    async with pyrepl3.open_session("new", store=store, config=LIMITS) as session:
        assert await value(session, "x") == 1


async def test_pools_keep_the_level_on_record(store: Path) -> None:
    await plant(store)
    async with pyrepl3.WorkerPool(1, LIMITS) as pool:
        with pytest.raises(pyrepl3.WeakerConfinement):
            await pool.session("s", store=store)
        with pytest.raises(pyrepl3.WeakerConfinement):
            await pool.open_session("s", store=store)
        async with pool.session("s", store=store, allow_weaker_confinement=True) as session:
            assert await value(session, "kept") == "kept"


def test_synchronous_sessions_keep_the_level_on_record(store: Path) -> None:
    with sync.open_session("s", store=store, config=strict_config()) as session:
        session.execute("x = 1")
        session.restart()
        session.execute("x = 2")
    with pytest.raises(pyrepl3.WeakerConfinement):
        sync.open_session("s", store=store, config=LIMITS)
    with sync.open_session("s", store=store, config=LIMITS, allow_weaker_confinement=True) as session:
        assert session.execute("x").value == 2
