"""Sessions for the suites."""

from collections.abc import AsyncIterator

import pytest

import pyrepl3_client as pyrepl3

from .support import quick


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[pyrepl3.Session]:
    """A session for all tests of a module, which leave it whole."""
    async with pyrepl3.open_session(config=quick()) as session:
        yield session


@pytest.fixture
async def session() -> AsyncIterator[pyrepl3.Session]:
    """A session for one test alone."""
    async with pyrepl3.open_session(config=quick()) as session:
        yield session
