"""The two workers."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import testing

from .cells import script_all

type Opener = Callable[..., AbstractAsyncContextManager[pyrepl3.Session]]

GRACES = {"cancel_grace": 0.5, "kill_grace": 0.5, "close_grace": 2.0}


@asynccontextmanager
async def _scripted(**options: Any) -> AsyncGenerator[pyrepl3.Session]:
    worker = testing.ScriptedWorker()
    script_all(worker)
    async with testing.open_session(worker, config=pyrepl3.WorkerConfig(**GRACES), **options) as session:
        yield session


@asynccontextmanager
async def _real(**options: Any) -> AsyncGenerator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(**GRACES), **options) as session:
        yield session


@pytest.fixture(params=[_scripted, _real], ids=["scripted", "real"])
def open_session(request: pytest.FixtureRequest) -> Opener:
    """Open a session; takes what `pyrepl3_client.open_session` takes, but for `config`."""
    return request.param
