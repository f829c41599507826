"""A scripted worker for each test."""

import pytest

from pyrepl3_client.testing import ScriptedWorker
from tests.helpers.scripted_sessions import script_basics


@pytest.fixture
def worker() -> ScriptedWorker:
    """A worker that knows the cells of `support`."""
    worker = ScriptedWorker()
    script_basics(worker)
    return worker
