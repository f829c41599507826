"""Fixtures: a world outside, and sessions that are confined from it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.confinement.escapes import PRELUDE
from tests.confinement.outside_world import SECRET, VARIABLE, OutsideWorld, open_world
from tests.confinement.sessions import strict_config


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideWorld]:
    """The world that no escape may reach."""
    os.environ[VARIABLE] = SECRET
    try:
        with open_world(tmp_path_factory.mktemp("world") / "outside") as world:
            yield world
    finally:
        del os.environ[VARIABLE]


@pytest.fixture(scope="module")
async def confined(world: OutsideWorld) -> AsyncIterator[pyrepl3.Session]:
    """A strictly confined session with facts about the world, for escapes that leave it usable."""
    async with pyrepl3.open_session(config=strict_config()) as session:
        await session.execute(f"{PRELUDE}\nW = {world.facts!r}")
        yield session


@pytest.fixture(scope="module")
async def unconfined(world: OutsideWorld) -> AsyncIterator[pyrepl3.Session]:
    """The same session without confinement."""
    async with pyrepl3.open_session(config=strict_config(confinement="none")) as session:
        await session.execute(f"{PRELUDE}\nW = {world.facts!r}")
        yield session


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder that every user may write to."""
    tmp_path.chmod(0o777)
    return tmp_path
