"""Fixtures of every test: the event loop, bounded property tests, a session, and the check for leaks."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.helpers.leak_check import Resources, left_behind

if TYPE_CHECKING:
    import pyrepl3_client as pyrepl3

settings.register_profile("bounded", max_examples=50, deadline=None, print_blob=True)
settings.register_profile("long", max_examples=5000, deadline=None, print_blob=True)
# `pytest --hypothesis-profile=long` overrides this.
settings.load_profile("bounded")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests and fixtures on plain asyncio, the backend our users have."""
    return "asyncio"


@pytest.fixture
async def session() -> "AsyncIterator[pyrepl3.Session]":
    """A session with a worker of its own, for one test alone."""
    import pyrepl3_client as pyrepl3  # here, so that tests of the lower rooms do without it

    async with pyrepl3.open_session() as opened:
        yield opened


@pytest.fixture(scope="session")
def temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each temporary folder stands; made before TMPDIR changes for the first time."""
    return tmp_path_factory.mktemp("left")


@pytest.fixture(scope="module")
def module_folder(temporary_folders: Path) -> Iterator[Path]:
    """TMPDIR of all tests of a module, so that the process which forks their workers has the same."""
    folder = Path(tempfile.mkdtemp(prefix="", dir=temporary_folders))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
async def forked_workers(module_folder: Path) -> AsyncIterator[None]:
    """Fork the workers of a module of tests that start many: see `tests.helpers.forked_workers`."""
    from tests.helpers.forked_workers import forked

    async with forked():
        yield


@pytest.fixture(autouse=True)
def leaves_nothing_behind(
    request: pytest.FixtureRequest, temporary_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail a test that leaves processes, threads, fds or temporary files behind.

    Its own files a test keeps in `tmp_path`; what else is made in TMPDIR was meant to be temporary.
    """
    if "forked_workers" in request.fixturenames:
        folder: Path = request.getfixturevalue("module_folder")
    else:
        folder = Path(tempfile.mkdtemp(prefix="", dir=temporary_folders))
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = Resources(folder)
    yield
    left = left_behind(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
