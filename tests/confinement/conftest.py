"""A world outside, and sessions confined from it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.confinement.escapes import PRELUDE
from tests.confinement.outside_world import SECRET, VARIABLE, World, open_world
from tests.confinement.sessions import strict


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What must not be reached."""
    os.environ[VARIABLE] = SECRET
    try:
        with open_world(tmp_path_factory.mktemp("world") / "outside") as world:
            yield world
    finally:
        del os.environ[VARIABLE]


@pytest.fixture(scope="module")
async def confined(world: World) -> AsyncIterator[pyrepl3.Session]:
    """A strictly confined session that knows all about the world, for attempts that leave it whole."""
    async with pyrepl3.open_session(config=strict()) as session:
        await session.execute(f"{PRELUDE}\nW = {world.facts!r}")
        yield session


@pytest.fixture(scope="module")
async def unconfined(world: World) -> AsyncIterator[pyrepl3.Session]:
    """The same without confinement."""
    async with pyrepl3.open_session(config=strict(confinement="none")) as session:
        await session.execute(f"{PRELUDE}\nW = {world.facts!r}")
        yield session


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder that anybody may use."""
    tmp_path.chmod(0o777)
    return tmp_path
