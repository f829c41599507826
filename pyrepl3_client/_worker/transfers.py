"""Requests to a worker by kind, each with one response; their bodies may have any size.

What a worker sends is not believed: the sizes that it announces are bounded by the caller, and a response or
chunk that belongs to no request is a violation of the protocol. A request that is given up, on both sides, is
remembered until the worker has said its last word about it.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pyrepl3_client._text import quoted, truncated
from pyrepl3_client._wire.connection import Connection
from pyrepl3_client.errors import ProtocolError, PyRepl3Error, WorkerUnresponsive
from pyrepl3_schemas.codec import decode_value, encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import Chunk, Request, Response
from pyrepl3_schemas.object_limit import has_more_objects, max_objects
from pyrepl3_schemas.transfer import Body, ReceivingParts, SendingParts, chunk_bytes, cut

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Bytes that a response may have unless its caller takes more."""


class RequestRefused(PyRepl3Error):  # noqa: N818 - the worker's answer, not a fault
    """The worker answered a request by an error."""

    def __init__(self, exception: str, message: str) -> None:
        """Keep the name of the exception's type and its text."""
        super().__init__(exception, message)
        self.exception = exception
        self.message = message

    def __str__(self) -> str:
        """Return the text."""
        return self.message or self.exception


class _Transfer:
    """One request, until the worker has said its last word about it."""

    def __init__(self, sending: SendingParts, max_bytes: int) -> None:
        self.sending = sending
        self.max_bytes = max_bytes
        self.response: Response | None = None
        self.receiving: ReceivingParts | None = None
        self.failure: BaseException | None = None
        self.given_up = False
        self.changed = asyncio.Event()

    @property
    def done(self) -> bool:
        """Whether the whole response has come, or none comes."""
        if self.failure is not None:
            return True
        return self.response is not None and (self.receiving is None or self.receiving.done)


class Transfers:
    """The open requests to one worker."""

    def __init__(self, connection: Callable[[], Connection], busy: Callable[[], str]) -> None:
        """Ask over `connection()`; `busy` returns in words what the worker is doing, empty for nothing."""
        self._connection = connection
        self._busy = busy
        self._numbers = itertools.count(1)
        self._open: dict[str, _Transfer] = {}
        self._end_error: Callable[[], BaseException] | None = None

    async def ask(self, kind: str, value: object, timeout: float | None) -> Any:
        """Ask for something whose answer is plain data, and return that.

        Args:
            kind: of the request.
            value: plain data.
            timeout: seconds for which the worker may send nothing; None for as long as it takes.

        Raises:
            RequestRefused: the worker answered by an error.
            WorkerUnresponsive: it sent nothing for so long.
            WorkerDied, SessionClosed: there will be no answer.
            ProtocolError: the request cannot be sent, or the answer cannot be read.
        """
        try:
            raw = encode_value(value)
        except LocalProtocolError as error:
            raise ProtocolError(error.reason) from error
        body = await self.request(kind, Body(raw), timeout)
        if not isinstance(body.value, msgspec.Raw):
            return None
        try:
            return decode_value(body.value)
        except RemoteProtocolError as error:
            raise ProtocolError(f"its answer to a {kind} request is broken: {error.reason}") from None

    async def request(
        self, kind: str, body: Body, timeout: float | None, max_bytes: int = MAX_BODY_BYTES
    ) -> Body:
        """Send a request of any size, and return its response's body.

        Args:
            kind: of the request.
            body: what is sent; its parts must not change meanwhile.
            timeout: seconds for which the worker may send nothing; None for as long as it takes.
            max_bytes: bytes that the response may have.

        Raises:
            RequestRefused: the worker answered by an error, or has more to say than `max_bytes`.
            WorkerUnresponsive: it sent nothing for so long.
            WorkerDied, SessionClosed: there will be no answer.
            ProtocolError: the request cannot be sent.
        """
        if self._end_error is not None:
            raise self._end_error()
        connection = self._connection()
        request_id = f"r{next(self._numbers)}"
        try:
            whole = cut(body, connection.max_frame_bytes)
        except ValueError as error:
            raise ProtocolError(f"a {kind} request cannot be sent: {error}") from None
        sending = SendingParts(request_id, whole.parts, chunk_bytes(connection.max_frame_bytes))
        connection.send(Request(request_id, kind, whole.value, whole.sizes))
        # Also when nothing is running: a background task may hold the worker's loop.
        connection.wake()
        transfer = self._open[request_id] = _Transfer(sending, max_bytes)
        connection.start_forced_reading()
        try:
            await self._exchange(connection, transfer, kind, timeout)
        except BaseException:
            self._give_up(connection, request_id, transfer)
            raise
        finally:
            connection.stop_forced_reading()
        return self._result(transfer)

    async def _exchange(
        self, connection: Connection, transfer: _Transfer, kind: str, timeout: float | None
    ) -> None:
        """Send the parts as they are acknowledged, until the response is there."""
        loop = asyncio.get_running_loop()
        sending = transfer.sending
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                while not transfer.done:
                    transfer.changed.clear()
                    if timeout is not None:
                        limit.reschedule(loop.time() + timeout)
                    if transfer.response is None and not sending.done and not sending.is_full:
                        connection.send_chunk(sending.next_chunk())
                        connection.wake()
                        await connection.writer.wait_written()
                        connection.wake()
                    else:
                        await transfer.changed.wait()
        except TimeoutError:
            if not limit.expired():
                raise
            what = self._busy()
            raise WorkerUnresponsive(
                f"worker {connection.worker.pid} did not answer a {kind} request: nothing came "
                f"for {timeout:g} s{f' ({what})' if what else ''}"
            ) from None

    def _result(self, transfer: _Transfer) -> Body:
        if transfer.failure is not None:
            raise transfer.failure
        response = transfer.response
        assert response is not None
        if response.error is not None:
            raise RequestRefused(response.error.exception, response.error.message)
        body = Body(response.body) if transfer.receiving is None else transfer.receiving.body()
        if isinstance(body.value, msgspec.Raw):
            data = memoryview(body.value)
            most = max_objects(max(MAX_BODY_BYTES, data.nbytes))
            if has_more_objects(data, most):
                raise ProtocolError(f"its response holds more than {most:,} arrays, maps and texts")
        return body

    def _give_up(self, connection: Connection, request_id: str, transfer: _Transfer) -> None:
        """Want nothing more of a request; the worker is told, and so has nothing more of it either."""
        transfer.given_up = True
        if transfer.done or connection.killed or connection.exited.done():
            return
        if transfer.response is not None:
            connection.send(Chunk(request_id, 0, last=True))
        elif not transfer.sending.done:
            connection.send(transfer.sending.give_up())
        connection.wake()

    # --- routes --------------------------------------------------------------------------------------

    def on_response(self, message: Response) -> None:
        """Take a response.

        Raises:
            ProtocolError: there is no such request, or it has its response, or this one is broken.
        """
        request_id = message.request_id
        transfer = self._open.get(request_id)
        if transfer is None or transfer.response is not None:
            raise ProtocolError(f"its response {quoted(request_id)} answers nothing that we asked")
        size = sum(message.parts)
        if not transfer.given_up and size > transfer.max_bytes:
            text = f"it takes {size:,} bytes, over max_bytes={transfer.max_bytes:,}"
            transfer.given_up = True
            transfer.failure = RequestRefused("ValueTooLarge", text)
        if not message.parts:
            del self._open[request_id]
        elif transfer.given_up:
            self._connection().send(Chunk(request_id, 0, last=True))
        else:
            try:
                transfer.receiving = ReceivingParts(message)
            except RemoteProtocolError as error:
                raise ProtocolError(f"its response is broken: {error.reason}") from None
        transfer.response = message
        transfer.changed.set()

    def on_chunk(self, chunk: Chunk) -> None:
        """Take a chunk: one of a response's, or one that acknowledges one of a request's.

        Raises:
            ProtocolError: there is no such request, or the chunk is not what has to come.
        """
        request_id = chunk.request_id
        transfer = self._open.get(request_id)
        if transfer is None:
            raise ProtocolError(f"it sent a chunk of {quoted(request_id)}, of which none are to come")
        if transfer.given_up:
            if transfer.response is not None and chunk.last:
                del self._open[request_id]
            return
        try:
            if transfer.receiving is None:
                transfer.sending.acknowledge(chunk)
            else:
                self._connection().send(transfer.receiving.add(chunk))
                if transfer.receiving.done:
                    del self._open[request_id]
        except RemoteProtocolError as error:
            raise ProtocolError(truncated(error.reason)) from None
        except MemoryError:
            transfer.given_up = True
            transfer.failure = RequestRefused("MemoryError", "there is no memory here for all of it")
            self._connection().send(Chunk(request_id, chunk.seq, last=True))
            if chunk.last:
                del self._open[request_id]
        if transfer.receiving is not None and transfer.receiving.given_up:
            raise ProtocolError(f"it gave up its response {quoted(request_id)}")
        transfer.changed.set()

    def end(self, error: Callable[[], BaseException]) -> None:
        """Fail all requests, those to come too, each with an error of its own. The first end counts."""
        if self._end_error is None:
            self._end_error = error
        for transfer in self._open.values():
            if not transfer.done:
                transfer.failure = error()
                transfer.changed.set()
        self._open.clear()
