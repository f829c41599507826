"""Opening a session: the one way in, and the way out that leaves nothing behind."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from pyrepl3_client._execution import InputHandler, OutputHandler
from pyrepl3_client._flight import Capabilities
from pyrepl3_client._process import spawn
from pyrepl3_client._session import Session
from pyrepl3_client._worker import Launch
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import StoreError

DEFAULT_CONFIG: Final = WorkerConfig()


@asynccontextmanager
async def open_session(
    session_id: str | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    config: WorkerConfig = DEFAULT_CONFIG,
    capabilities: Capabilities | None = None,
    on_output: OutputHandler | None = None,
    on_input: InputHandler | None = None,
) -> AsyncGenerator[Session]:
    """Start a worker and give a session in it; leaving the context ends both.

    Entering and leaving may happen in different tasks of one event loop.

    Args:
        session_id: names the session; without a colon. One is made up by default.
        store: where outcomes are recorded.
        config: the worker's interpreter, surroundings, limits and graces.
        capabilities: host functions by the names under which the code may call them; see `capability`.
        on_output: gets every `Output` in order: also what comes after its execution has ended (`late`)
            and what belongs to none. It runs on the event loop; an asynchronous one is awaited before it
            gets the next. It must not wait for an execution of this session.
        on_input: answers prompts; a plain function runs in a thread and may block. None, as an answer or
            a handler, is the end of input: `input()` raises EOFError.

    Raises:
        SpawnError: no worker can be started; says why, with the last lines it wrote.
        CapabilityError: a capability cannot be offered.
        StoreError: the store cannot be used.
        ValueError: an id means nothing.

    Example:
        async with open_session() as session:
            result = await session.execute("1 + 1")
            assert result.value == 2
    """
    if store is not None:
        raise StoreError(
            f"this version records nothing, so it cannot use the store {os.fspath(store)!r}; leave store out"
        )
    async with open_with(spawn, session_id, config, capabilities, on_output, on_input) as session:
        yield session


@asynccontextmanager
async def open_with(
    launch: Launch,
    session_id: str | None,
    config: WorkerConfig,
    capabilities: Capabilities | None,
    on_output: OutputHandler | None,
    on_input: InputHandler | None,
) -> AsyncGenerator[Session]:
    """Give a session in a worker that `launch` provides."""
    session = Session(session_id, config, launch, capabilities, on_output, on_input)
    try:
        await session.begin()
        yield session
    finally:
        await session.close()
