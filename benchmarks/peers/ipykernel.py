"""ipykernel, spoken to through jupyter_client's asyncio manager and client with their defaults."""

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from benchmarks.peers import load

type _Message = dict[str, Any]


class _Client(Protocol):
    def start_channels(self) -> None: ...
    def stop_channels(self) -> None: ...
    async def wait_for_ready(self) -> None: ...
    def execute(self, code: str) -> str: ...
    async def get_shell_msg(self) -> _Message: ...
    async def get_iopub_msg(self) -> _Message: ...


class _Provisioner(Protocol):
    pid: int | None


class _Manager(Protocol):
    provisioner: _Provisioner

    async def start_kernel(self, *, stdout: int, stderr: int) -> None: ...
    async def interrupt_kernel(self) -> None: ...
    async def shutdown_kernel(self, *, now: bool = False) -> None: ...
    def client(self) -> _Client: ...


class _JupyterClient(Protocol):
    def AsyncKernelManager(self) -> _Manager: ...  # noqa: N802 - jupyter_client's name


@dataclass(slots=True)
class Cell:
    """One execution: what it has printed so far, and how it ended."""

    message_id: str
    characters: int = 0
    status: str = ""
    exception: str = ""


class Kernel:
    """A running kernel."""

    def __init__(self, manager: _Manager, client: _Client) -> None:
        """Use a manager whose kernel runs, and a client that is ready."""
        self._manager = manager
        self._client = client

    @property
    def pid(self) -> int:
        """The kernel's process."""
        pid = self._manager.provisioner.pid
        if pid is None:
            raise RuntimeError("the kernel has ended")
        return pid

    def start(self, code: str) -> Cell:
        """Submit code."""
        return Cell(self._client.execute(code))

    async def printed(self, cell: Cell) -> None:
        """Wait for the cell's next text."""
        before = cell.characters
        while cell.characters == before:
            await self._follow(cell)

    async def finish(self, cell: Cell) -> Cell:
        """Wait for the cell's reply and for its `idle`, the sign that all its output has come."""
        while not await self._follow(cell):
            pass
        while True:
            reply = await self._client.get_shell_msg()
            if reply["parent_header"].get("msg_id") == cell.message_id:
                cell.status = reply["content"]["status"]
                cell.exception = reply["content"].get("ename", "")
                return cell

    async def execute(self, code: str) -> Cell:
        """Run code to its end.

        Raises:
            RuntimeError: it failed.
        """
        cell = await self.finish(self.start(code))
        if cell.status != "ok":
            raise RuntimeError(f"the kernel answered {cell.status} {cell.exception}")
        return cell

    async def interrupt(self) -> None:
        """Send the interrupt that a notebook's stop button sends."""
        await self._manager.interrupt_kernel()

    async def _follow(self, cell: Cell) -> bool:
        message = await self._client.get_iopub_msg()
        if message["parent_header"].get("msg_id") != cell.message_id:
            return False
        match message["msg_type"]:
            case "stream":
                cell.characters += len(message["content"]["text"])
            case "status":
                return message["content"]["execution_state"] == "idle"
            case _:
                pass
        return False


@asynccontextmanager
async def open_kernel() -> AsyncGenerator[Kernel]:
    """Start a kernel and wait until it answers; shut it down on the way out.

    Raises:
        NotInstalledError: there is no ipykernel or no jupyter_client.
    """
    load("ipykernel")
    manager = cast("_JupyterClient", load("jupyter_client")).AsyncKernelManager()
    # A kernel also copies what its code writes to fd 1 to its own standard output: not onto our table.
    await manager.start_kernel(stdout=DEVNULL, stderr=DEVNULL)
    try:
        client = manager.client()
        client.start_channels()
        try:
            async with asyncio.timeout(60):
                await client.wait_for_ready()
            yield Kernel(manager, client)
        finally:
            client.stop_channels()
    finally:
        await manager.shutdown_kernel(now=True)
