"""Sockets of the proxy: bytes in both directions, with a count, back-pressure and half-closing.

Not asyncio's streams: these buffer nothing but one block, and what is closed is closed at once.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from pyrepl3_client._host_rules import Address

_BLOCK_BYTES: Final = 64 * 1024
_IPV6: Final = 6
_NOTHING: Final = memoryview(b"")
_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, for no seconds: closing says that something went wrong (RST), where an end would look whole."""


class PeerGoneError(Exception):
    """A connection broke, or ended where it may not."""

    def __init__(self, stream: "Stream", why: str) -> None:
        """Say of which stream, and why."""
        super().__init__(why)
        self.stream = stream


class TooLongError(Exception):
    """What was to be read up to an end mark is too long."""


class Stream:
    """One connected socket, on the running loop."""

    def __init__(self, connection: socket.socket, moved: Callable[[], None]) -> None:
        """Own a connection.

        Args:
            connection: a socket that does not block.
            moved: called whenever bytes have come or gone.
        """
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._moved = moved
        self._block: memoryview | None = None
        self._rest = _NOTHING
        """What has been received and not been taken."""
        self.sent = 0
        self.received = 0
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    async def connect(cls, address: Address, port: int, moved: Callable[[], None]) -> Self:
        """Connect to an address: exactly that one, with no look-up of any kind.

        Raises:
            OSError: it cannot be connected to.
        """
        family = socket.AF_INET6 if address.version == _IPV6 else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with suppress(BlockingIOError):
                connection.connect((str(address), port))
            stream = cls(connection, moved)
            await stream._until_writable()
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))  # noqa: TRY301 - closed below
        except BaseException:
            connection.close()
            raise
        return stream

    async def receive(self, most: int = _BLOCK_BYTES) -> memoryview:
        """Return the next bytes, at most `most` of them; none at the end. Valid until the next call.

        Raises:
            PeerGoneError: the connection broke.
        """
        if self._rest:
            taken, self._rest = self._rest[:most], self._rest[most:]
            return taken
        if self._block is None:
            self._block = memoryview(bytearray(_BLOCK_BYTES))
        try:
            size = await self._loop.sock_recv_into(self._socket, self._block[:most])
        except OSError as error:
            raise PeerGoneError(self, error.strerror or str(error)) from None
        self.received += size
        self._moved()
        return self._block[:size]

    async def receive_until(self, end: Callable[[bytes], int], most: int) -> bytes:
        """Return the bytes up to an end mark, with it; what comes behind it is kept.

        Args:
            end: returns where it ends in what has come, -1 where it does not.
            most: bytes that it may have.

        Raises:
            TooLongError: it has more.
            PeerGoneError: the connection broke or ended before.
        """
        rest, self._rest = self._rest, _NOTHING
        while True:
            # A copy of what may belong to it, never of all that has come: lines may be many, and short.
            data = bytes(rest[:most])
            at = end(data)
            if at >= 0:
                self._rest = rest[at:]
                return data[:at]
            if len(rest) >= most:
                raise TooLongError(f"it has more than {most} bytes")
            block = await self.receive()
            if not block:
                raise PeerGoneError(self, "it ended in the middle" if data else "it ended before it began")
            rest = memoryview(data + block)

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it.

        Raises:
            PeerGoneError: the connection broke.
        """
        view = memoryview(data)
        while view:
            try:
                size = self._socket.send(view)
            except (BlockingIOError, InterruptedError):
                await self._until_writable()
                continue
            except OSError as error:
                raise PeerGoneError(self, error.strerror or str(error)) from None
            self.sent += size
            self._moved()
            view = view[size:]

    def end(self) -> None:
        """Say that no more is sent; what is received goes on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close the connection in a way that its peer cannot take for an end."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._socket.close()

    def __enter__(self) -> Self:
        """Own the connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection; abort it if something went wrong."""
        if error is None:
            self._socket.close()
        else:
            self.abort()

    async def _until_writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()

        def tell() -> None:
            if not writable.done():
                writable.set_result(None)

        self._loop.add_writer(self._socket, tell)
        try:
            await writable
        finally:
            self._loop.remove_writer(self._socket)


async def carry(source: Stream, sink: Stream) -> None:
    """Send what comes from one stream to another, and its end; as fast as the slower one takes it.

    Raises:
        PeerGoneError: a connection broke.
    """
    while block := await source.receive():
        await sink.send(block)
        # Where both are fast, nothing above waits: others have their turn too.
        await asyncio.sleep(0)
    sink.end()
