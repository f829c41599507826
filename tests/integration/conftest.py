"""Sessions for the suites."""

from collections.abc import AsyncIterator

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick


@pytest.fixture(scope="module")
async def module_session() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=quick()) as session:
        yield session


@pytest.fixture
async def shared(module_session: pyrepl3.Session) -> AsyncIterator[pyrepl3.Session]:
    """A session for all tests of a module, which leave it whole; after one that does not, a new worker."""
    before = module_session.worker.incarnation
    yield module_session
    unharmed = (
        module_session.state is pyrepl3.SessionState.READY and module_session.worker.incarnation == before
    )
    if not unharmed:
        await module_session.restart()
    assert unharmed, "the session's worker died"


@pytest.fixture
async def session() -> AsyncIterator[pyrepl3.Session]:
    """A session for one test alone, which stays dead when its worker dies."""
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        yield session
