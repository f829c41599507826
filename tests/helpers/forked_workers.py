"""Workers by a fork, for modules of tests that start many: milliseconds each, and not tenths of a second.

They come from a fork server, as the workers of a pool do, and those that replace workers which died.
`tests/integration/fork_server` tests that they are like spawned ones. What can not be forked is spawned:
for another environment or directory, strictly confined, on another loop. `PYREPL3_SPAWN=1` has all spawned.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from pyrepl3_client._launch import shared_fork_server
from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.fork_server_process import SpawnEnvironment
from pyrepl3_client._launch.spawn import spawn
from pyrepl3_client._launch.worker import Worker
from pyrepl3_client.config import WorkerConfig


@asynccontextmanager
async def forked() -> AsyncGenerator[None]:
    """Fork the workers that sessions of this loop start, as long as it is entered."""
    if os.environ.get("PYREPL3_SPAWN"):
        yield
        return
    loop = asyncio.get_running_loop()
    async with ForkServer(WorkerConfig()) as fork_server:
        await fork_server.wait_started()
        assert fork_server.reason is None, fork_server.reason
        environment = SpawnEnvironment.from_config(fork_server.config)

        def launch(config: WorkerConfig) -> Worker:
            forkable = asyncio.get_running_loop() is loop and not config.warm
            # Asked here, since the fork server would start anew for another environment.
            if forkable and not SpawnEnvironment.from_config(config).differences(environment):
                return fork_server.launch(config)
            return spawn(config)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared_fork_server, "spawn", launch)
            yield
