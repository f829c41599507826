"""The two workers."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import testing
from tests.contract.cells import script_all

CONFIG = pyrepl3.WorkerConfig(cancel_grace=0.5, kill_grace=0.5)


class Opener(Protocol):
    """Opens a session, as `pyrepl3_client.open_session` does."""

    def __call__(
        self,
        session_id: str | None = None,
        *,
        config: pyrepl3.WorkerConfig = CONFIG,
        capabilities: Mapping[str, Callable[..., Any]] | None = None,
        on_output: pyrepl3.OutputHandler | None = None,
        on_input: pyrepl3.InputHandler | None = None,
    ) -> AbstractAsyncContextManager[pyrepl3.Session]: ...


def scripted() -> Opener:
    worker = testing.ScriptedWorker()
    script_all(worker)
    return partial(testing.open_session, worker, config=CONFIG, recovery="none")


def real() -> Opener:
    return partial(pyrepl3.open_session, config=CONFIG, recovery="none")


@pytest.fixture(params=[scripted, real], ids=lambda make: make.__name__)
def open_session(request: pytest.FixtureRequest) -> Opener:
    """Open a session with one worker or the other."""
    return request.param()
