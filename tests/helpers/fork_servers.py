"""Helpers for tests of fork servers: sessions from one, warm modules, false fork servers."""

import stat
import sys
import textwrap
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig
from pyrepl3_client._execution.handlers import Handlers
from pyrepl3_client._launch.fork_server import ForkServer
from pyrepl3_client._launch.spawn import spawn
from pyrepl3_client._launch.worker import Worker
from pyrepl3_client._session.open import open_with
from tests.helpers.real_sessions import quick


def opened(
    fork_server: ForkServer, config: WorkerConfig | None = None, **options: Any
) -> AbstractAsyncContextManager[pyrepl3.Session]:
    """Open a session in a worker that a fork server launches."""
    return open_with(
        fork_server.launch,
        None,
        config or fork_server.config,
        options.get("capabilities"),
        Handlers(options.get("on_output"), options.get("on_input")),
    )


def double(number: int) -> int:
    return 2 * number


def typed(prompt: str) -> str:
    return "typed"


async def ready(fork_server: ForkServer) -> ForkServer:
    """Wait until a fork server forks."""
    with anyio.fail_after(20):
        await fork_server.wait_started()
    assert fork_server.reason is None, fork_server.reason
    return fork_server


def modules(folder: Path, **sources: str) -> WorkerConfig:
    """Write modules; return a configuration that warms them."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return replace(quick(), env={"PYTHONPATH": str(folder)}, warm=tuple(sources))


def impostor(folder: Path, answer: str) -> str:
    """Return the path of an "interpreter" that says that it can fork, and then does something else."""
    path = folder / "interpreter"
    path.write_text(
        f"#!{sys.executable}\nimport os, socket, sys\nfrom pyrepl3_schemas.fork_server import *\n"
        "from pyrepl3_schemas.fork_server import decode_request, encode_packet\n"
        "control = socket.socket(fileno=0)\ncontrol.send(encode_packet(CanFork()))\n"
        f"while packet := control.recv(65536):\n    number = decode_request(packet).number\n    {answer}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def spawn_real(config: WorkerConfig) -> Worker:
    """Spawn with the real interpreter instead of the configured one."""
    return spawn(replace(config, python=sys.executable))
