"""A proxy on loopback, on the test's own loop, with a resolver that the test decides, and hosts behind it."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

import anyio

from pyrepl3_client._host_rules import Address, parse_rules
from pyrepl3_client._network.proxy import Clients, Limits, Served, serve_clients

BOUND_SECONDS = 20.0
"""Far more than anything here takes."""


@dataclass
class LiveProxy:
    """A proxy that listens."""

    port: int
    told: list[Served] = field(default_factory=list[Served])
    tellings: asyncio.Queue[Served] = field(default_factory=asyncio.Queue[Served])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as a client."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send something, and return all that comes until the end; what was sent stays open unless closed."""
        with anyio.fail_after(BOUND_SECONDS):
            reader, writer = await self.connect()
            try:
                # What is refused early is reset when it goes on.
                with suppress(ConnectionError):
                    writer.write(data)
                    if half_close:
                        writer.write_eof()
                    await writer.drain()
                    return await reader.read()
                return b""
            finally:
                writer.close()

    async def last(self) -> Served:
        """Return the next connection that is told of."""
        with anyio.fail_after(BOUND_SECONDS):
            return await self.tellings.get()

    def tell(self, served: Served) -> None:
        """Take note of a connection."""
        self.told.append(served)
        self.tellings.put_nowait(served)


@asynccontextmanager
async def live_proxy(
    *hosts: str,
    names: Mapping[str, Sequence[str]] | None = None,
    resolve: Callable[[str, int], Awaitable[Sequence[Address]]] | None = None,
    limits: Limits | None = None,
) -> AsyncGenerator[LiveProxy]:
    """Run a proxy for the rules `hosts`; it knows the names in `names` alone."""
    known = names or {}

    async def look_up(name: str, port: int) -> Sequence[Address]:
        if name not in known:
            raise OSError(f"{name} is not known")
        return [ip_address(address) for address in known[name]]

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.setblocking(False)
        proxy = LiveProxy(listener.getsockname()[1])
        clients = Clients(parse_rules("hosts", hosts), resolve or look_up, proxy.tell, limits or Limits())
        task = asyncio.create_task(serve_clients(listener, clients))
        try:
            yield proxy
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


@dataclass
class Host:
    """A host that records what arrives, each connection by itself."""

    port: int
    arrived: list[bytearray] = field(default_factory=list[bytearray])
    open: int = 0


@asynccontextmanager
async def recording_host(
    respond: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    address: str = "127.0.0.1",
) -> AsyncGenerator[Host]:
    """Run a host on loopback that answers `respond` to the first bytes, ends, and records the rest.

    With None it sends back what comes, and ends when that does.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived = bytearray()
        host.arrived.append(arrived)
        host.open += 1
        writers.add(writer)
        try:
            with suppress(ConnectionError):
                answered = False
                while data := await reader.read(65536):
                    arrived += data
                    if respond is None:
                        writer.write(data)
                    elif not answered and b"\r\n\r\n" in arrived:
                        writer.write(respond)
                        writer.write_eof()
                        answered = True
                    await writer.drain()
        finally:
            host.open -= 1
            writers.discard(writer)
            writer.close()

    writers: set[asyncio.StreamWriter] = set()
    server = await asyncio.start_server(serve, address, 0)
    host = Host(server.sockets[0].getsockname()[1])
    try:
        yield host
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
