"""One worker's proxy: takes its connections, decides, connects, carries, and says what became of each.

All that a client sends is untrusted: heads are bounded and parsed strictly, connections and time are limited,
and nothing is connected to but an address that was checked.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from pyrepl3_client._host_rules import HostRule
from pyrepl3_client._network.addresses import Resolve, may_be_reached
from pyrepl3_client._network.bodies import carry_body
from pyrepl3_client._network.requests import (
    CONNECT,
    MAX_HEAD_BYTES,
    MAX_RESPONSE_HEAD_BYTES,
    BadRequestError,
    Request,
    answer,
    authority,
    parse_request,
    request_head_end,
    response_head_end,
    rewrite_response,
)
from pyrepl3_client._network.streams import PeerGoneError, Stream, TooLongError, carry
from pyrepl3_client._telemetry.events import ConnectionOutcome

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_MAX_TRIED: Final = 3
"""Addresses of one host that are tried."""
_LINGER_SECONDS: Final = 2.0
"""Seconds for which what a client still sends is read and dropped, so that it gets its answer."""
_RETRY_SECONDS: Final = 1.0
"""Seconds until connections are taken again where this program has no room for another descriptor."""


class Limits(msgspec.Struct, frozen=True):
    """What the clients of one proxy may have."""

    connections: int = 64
    """At a time; more wait until one has ended."""
    head_seconds: float = 30.0
    """Until a request is there."""
    connect_seconds: float = 30.0
    """Until its host is looked up and connected to."""
    idle_seconds: float = 30.0
    """Without a byte in either direction."""


class Served(msgspec.Struct):
    """One connection of a client, and what became of it."""

    host: str = ""
    """Empty if there was no request that could be read."""
    port: int = 0
    method: str = ""
    outcome: ConnectionOutcome = "ok"
    message: str = ""
    """Why it was refused, or failed."""
    sent: int = 0
    """Bytes to the host."""
    received: int = 0
    """Bytes from the host."""
    seconds: float = 0.0


class Clients(msgspec.Struct, frozen=True):
    """How the clients of one proxy are treated."""

    rules: Sequence[HostRule]
    """What they may reach."""
    resolve: Resolve
    """Looks names up."""
    tell: Callable[[Served], None]
    """Is told of each connection that has ended."""
    limits: Limits


class _AnswerError(Exception):
    """The proxy answers by itself, and the connection is over."""

    def __init__(self, outcome: ConnectionOutcome, status: int, text: str, message: str = "") -> None:
        """Give status and text to the client; to the log the text too, or another."""
        super().__init__(text)
        self.outcome: ConnectionOutcome = outcome
        self.status = status
        self.message = message or text


async def serve_clients(listener: socket.socket, clients: Clients) -> None:
    """Serve what connects to a socket, until this is cancelled; all connections have been aborted then.

    Args:
        listener: a socket that listens, and stays the caller's.
        clients: how those that connect are treated.
    """
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(clients.limits.connections)
    tasks: set[asyncio.Task[None]] = set()

    def on_end(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        places.release()

    try:
        while True:
            await places.acquire()
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                places.release()
                await asyncio.sleep(_RETRY_SECONDS)  # no room for a descriptor, say
                continue
            task = loop.create_task(_Connection(connection, clients).serve())
            tasks.add(task)
            task.add_done_callback(on_end)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class _Connection:
    """One connection of a client."""

    def __init__(self, connection: socket.socket, clients: Clients) -> None:
        """Own `connection`."""
        self._clients = clients
        self._limits = clients.limits
        self._loop = asyncio.get_running_loop()
        self._idle: asyncio.Timeout | None = None
        self._client = Stream(connection, self._moved)
        self._served = Served()

    async def serve(self) -> None:
        """Do what the client asks for, and tell what became of it."""
        began = time.perf_counter()
        served = self._served
        with self._client as client:
            try:
                last_words = await self._carry_out()
            except asyncio.CancelledError:
                served.outcome, served.message = "failed", "the worker has ended"
                raise
            finally:
                served.seconds = time.perf_counter() - began
                self._clients.tell(served)
            if last_words is None:
                client.abort()
                return
            with suppress(PeerGoneError, TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await client.send(last_words)
                    client.end()
                    # Closed with something unread, the connection would lose what was sent last.
                    while await client.receive():  # noqa: ASYNC110 - a turn for the others
                        await asyncio.sleep(0)

    async def _carry_out(self) -> bytes | None:
        """Return what is left to be said to the client; None if it must not take this for an end."""
        served, client = self._served, self._client
        try:
            request = await self._read_request()
            served.method, served.host, served.port = request.method, str(request.host), request.port
            self._check_rules(request)
            with await self._connect(request) as upstream:
                try:
                    async with asyncio.timeout(self._limits.idle_seconds) as self._idle:
                        if request.method == CONNECT:
                            await self._tunnel(upstream)
                        else:
                            await self._pass_on(request, upstream)
                finally:
                    self._idle = None
                    served.sent, served.received = upstream.sent, upstream.received
        except _AnswerError as caught:
            error = caught
        except PeerGoneError as caught:
            if caught.stream is client:
                served.outcome, served.message = "failed", f"the client's connection broke: {caught}"
                return None
            error = _AnswerError("failed", 502, f"the host's connection broke: {caught}")
        except TimeoutError:
            error = _AnswerError("failed", 504, f"nothing has moved for {self._limits.idle_seconds:g} s")
        else:
            return b""
        served.outcome, served.message = error.outcome, error.message
        # In the middle of a response there is no room for another.
        return None if client.sent else answer(error.status, str(error))

    # --- before anything is connected to -----------------------------------------------------------------

    async def _read_request(self) -> Request:
        seconds = self._limits.head_seconds
        try:
            async with asyncio.timeout(seconds):
                return parse_request(await self._client.receive_until(request_head_end, MAX_HEAD_BYTES))
        except TimeoutError:
            raise _AnswerError("refused", 408, f"there was no request within {seconds:g} s") from None
        except TooLongError:
            raise _AnswerError(
                "refused", 431, f"the head of the request has more than {MAX_HEAD_BYTES} bytes"
            ) from None
        except BadRequestError as error:
            raise _AnswerError("refused", 400, str(error)) from None

    def _check_rules(self, request: Request) -> None:
        if any(rule.allows(request.host, request.port, request.method) for rule in self._clients.rules):
            return
        where = authority(request.host, request.port)
        what = where if request.method == CONNECT else f"{request.method} {where}"
        raise _AnswerError(
            "refused",
            403,
            f"{what} is not allowed; the rule {where!r} in SandboxPolicy(hosts=…) would allow it",
        )

    async def _connect(self, request: Request) -> Stream:
        where = authority(request.host, request.port)
        seconds = self._limits.connect_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._connect_to_any(request, where)
        except TimeoutError:
            raise _AnswerError("failed", 504, f"{where} did not answer within {seconds:g} s") from None
        except OSError as error:
            why = error.strerror or str(error)
            raise _AnswerError("failed", 502, f"{where} cannot be connected to: {why}") from None

    async def _connect_to_any(self, request: Request, where: str) -> Stream:
        port = request.port
        if isinstance(request.host, str):
            addresses = await self._clients.resolve(request.host, port)
        else:
            addresses = (request.host,)
        # What is connected to below is what was checked here: the name is not looked up again.
        allowed = [
            address
            for address in addresses
            if may_be_reached(address, port, request.method, self._clients.rules)
        ]
        if addresses and not allowed:
            told = (
                f"{where} is not at a public address; a rule in SandboxPolicy(hosts=…) that names its address"
            )
            raise _AnswerError(
                "refused",
                403,
                f"{told}, or the range of it, would allow it",
                f"{told}, as {authority(addresses[0], port)!r}, would allow it",
            )
        tried = allowed[:_MAX_TRIED]
        last: OSError = OSError("it has no address")
        for address in tried:
            try:
                async with asyncio.timeout(self._limits.connect_seconds / len(tried)):
                    return await Stream.connect(address, port, self._moved)
            except OSError as error:  # also a TimeoutError
                last = error
        raise last

    # --- afterwards --------------------------------------------------------------------------------------

    def _moved(self) -> None:
        if self._idle is not None and not self._idle.expired():
            self._idle.reschedule(self._loop.time() + self._limits.idle_seconds)

    async def _tunnel(self, upstream: Stream) -> None:
        client = self._client
        await client.send(_ESTABLISHED)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(carry(client, upstream))
                await carry(upstream, client)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _pass_on(self, request: Request, upstream: Stream) -> None:
        await upstream.send(request.head)
        if not request.body_length:
            await self._download(upstream)
            return
        try:
            async with asyncio.TaskGroup() as group:
                upload = group.create_task(self._upload(request, upstream))
                await self._download(upstream)
                upload.cancel()  # whatever is left of it, nobody wants it
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _upload(self, request: Request, upstream: Stream) -> None:
        try:
            await carry_body(self._client, upstream, request.body_length)
        except BadRequestError as error:
            raise _AnswerError("refused", 400, str(error)) from None
        except PeerGoneError as error:
            if error.stream is self._client:
                raise
            # The host wants no more of it; it may have said why.

    async def _download(self, upstream: Stream) -> None:
        is_last = False
        try:
            while not is_last:
                head = await upstream.receive_until(response_head_end, MAX_RESPONSE_HEAD_BYTES)
                head, is_last = rewrite_response(head)
                await self._client.send(head)
                # A host may send informational ones without end, and faster than they are taken.
                await asyncio.sleep(0)
        except (BadRequestError, TooLongError) as error:
            raise _AnswerError("failed", 502, f"the host's response cannot be passed on: {error}") from None
        await carry(upstream, self._client)
