"""A Resonate server for tests: the SDK's own state machine, in this process or behind real HTTP.

It routes messages by their addresses, as a server does, and keeps messages that have not been fetched yet.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from resonate.connections.local import ServerState, unwrap_request_envelope, wrap_response_envelope
from resonate.connections.sse import resolve_target, unicast
from resonate.timing import now_ms
from resonate_base import ConnectorError

TICK = 0.02


class Server:
    """Answers requests, and delivers messages."""

    def __init__(self) -> None:
        self.state = ServerState()
        self.seconds_ahead = 0.0
        self.requests: list[str] = []
        self.refuse: Callable[[dict[str, Any]], bool] = lambda request: False
        """Says of a request that the server is not to be reached for it."""
        self._receivers: dict[tuple[str, str], Callable[[str], None]] = {}
        self._mail: defaultdict[str, list[str]] = defaultdict(list)

    def now(self) -> int:
        return now_ms() + int(self.seconds_ahead * 1000)

    def request(self, text: str) -> str:
        request = unwrap_request_envelope(msgspec.json.decode(text))
        self.requests.append(request["kind"])
        answer = self.state.apply(self.now(), request)
        # As a server has it, and the in-process one has not: a release names the lease it gives back.
        self._route()
        return msgspec.json.encode(wrap_response_envelope(answer)).decode()

    def tick(self) -> None:
        self.state.outgoing.clear()
        self.state.tick(self.now())
        self._route()

    def _route(self) -> None:
        outgoing, self.state.outgoing = self.state.outgoing, []
        for message in outgoing:
            self._mail[message.address].append(msgspec.json.encode(message.message).decode())
        for group, pid in list(self._receivers):
            self._deliver(group, pid)

    def _deliver(self, group: str, pid: str) -> None:
        receive = self._receivers[group, pid]
        for address in (unicast(group, pid), resolve_target(group)):
            for body in self._mail.pop(address, []):
                asyncio.get_running_loop().call_soon(receive, body)

    def listen(self, group: str, pid: str, receive: Callable[[str], None]) -> None:
        self._receivers[group, pid] = receive
        self._deliver(group, pid)

    def leave(self, group: str, pid: str) -> None:
        self._receivers.pop((group, pid), None)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the server's timers for as long as the block lasts."""

        async def ticks() -> None:
            while True:
                await asyncio.sleep(TICK)
                self.tick()

        task = asyncio.create_task(ticks())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    # --- over HTTP ---

    @asynccontextmanager
    async def over_http(self) -> AsyncGenerator[str]:
        """Serve on a loopback port, and give the URL: `POST /`, and `GET /poll/{group}/{pid}`."""
        serving: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            serving.add(task)
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    while await self._serve(reader, writer):
                        pass
            except asyncio.CancelledError:
                pass  # the server goes: `Server.wait_closed` would wait for this task
            finally:
                writer.close()
                serving.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 26)
        async with self.running():
            try:
                yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            finally:
                server.close()
                for task in list(serving):
                    task.cancel()
                if serving:
                    await asyncio.wait(serving)
                await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if method == "GET":
            await self._poll(path, reader, writer)
            return False
        body = (await reader.readexactly(int(headers["content-length"]))).decode()
        if self.refuse({**msgspec.json.decode(body), "authorization": headers.get("authorization")}):
            return False
        answer = self.request(body).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
        await writer.drain()
        return True

    async def _poll(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, group, pid = path.split("/")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await writer.drain()
        self.listen(group, pid, lambda body: writer.write(f"data: {body}\n\n".encode()))
        try:
            await reader.read()  # until the other side goes
        finally:
            self.leave(group, pid)


class InProcess:
    """Network and source of one process, on a server in this one."""

    def __init__(self, server: Server, group: str, pid: str) -> None:
        self._server, self._group, self._pid = server, group, pid
        self._callbacks: list[Callable[[str], None]] = []

    def unicast(self) -> str:
        return unicast(self._group, self._pid)

    def resolve_target(self, target: str) -> str:
        return resolve_target(target)

    def recv(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def _receive(self, body: str) -> None:
        for callback in self._callbacks:
            callback(body)

    async def start(self) -> None:
        self._server.listen(self._group, self._pid, self._receive)

    async def stop(self) -> None:
        self._server.leave(self._group, self._pid)

    async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
        await asyncio.sleep(0)
        if self._server.refuse(msgspec.json.decode(req)):
            raise ConnectorError(OSError("the server is away"))
        return self._server.request(req)
