"""Requests by kind, each with one response: bodies of any size, answered at once whatever runs.

A kind is registered with a handler, which runs on the loop's thread: between two callbacks, or in the
handler of the wake-up signal while code holds the thread. The code stands still until the response is out,
parts included, so that what it tells is from one moment. (The code's own threads go on.)
"""

import select
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pyrepl3_schemas.codec import decode_value, encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import Chunk, Request, RequestError, Response
from pyrepl3_schemas.transfer import Body, Part, ReceivingParts, SendingParts, chunk_bytes, cut
from pyrepl3_worker.confinement.in_force import exceeded_limit
from pyrepl3_worker.isolation.builtins_guard import PristineBuiltins
from pyrepl3_worker.rendering.reprs import encodable, type_name
from pyrepl3_worker.wire.transport import FrameSender

type Handler = Callable[[Body], Body]
"""Answers a request of one kind. What it raises is the response's error."""

_MAX_ERROR_CHARS: Final = 1000


class RequestServer:
    """Answers the requests of the kinds that are registered."""

    def __init__(
        self, writer: FrameSender, reader_fd: int, read: Callable[[], None], max_memory: int | None
    ) -> None:
        """Know no kind yet.

        Args:
            writer: sends the responses.
            reader_fd: becomes readable when something has arrived.
            read: reads it and dispatches it, and starts no cell.
            max_memory: the limit of the worker's memory, for the text of an error.
        """
        self._writer = writer
        self._read = read
        self._max_memory = max_memory
        self._poller: Final = select.poll()
        self._poller.register(reader_fd, select.POLLIN)
        self._handlers: dict[str, Handler] = {}
        self._receiving: dict[str, tuple[Request, ReceivingParts]] = {}
        self.due: deque[tuple[Request, Body]] = deque()
        """Requests that have come whole, and are not answered yet."""
        self._answering = False
        self._sending: tuple[str, SendingParts] | None = None
        self._ended = False

    def register(self, kind: str, handler: Handler) -> None:
        """Have requests of a kind answered by `handler`."""
        self._handlers[kind] = handler

    def register_plain(self, kind: str, function: Callable[[Any], object]) -> None:
        """Have requests of a kind answered by a function of one value; this and its result are plain data."""

        def handle(body: Body) -> Body:
            value = None if body.value is msgspec.UNSET else decode_value(body.value)
            return Body(encode_value(function(value), self._writer.max_frame_bytes))

        self.register(kind, handle)

    # --- what comes ----------------------------------------------------------------------------------

    def on_request(self, message: Request) -> None:
        """Take a request; it is answered when `answer_due` is called next, or when its parts have come."""
        if message.kind not in self._handlers:
            known = ", ".join(sorted(self._handlers))
            text = f"there are no requests of kind {message.kind[:100]!r}; there are: {known}"
            self._send_error(message.request_id, "LookupError", text)
        elif not message.parts:
            self.due.append((message, Body(message.body)))
        else:
            try:
                self._receiving[message.request_id] = message, ReceivingParts(message)
            except RemoteProtocolError as error:
                self._send_error(message.request_id, "ValueError", error.reason)

    def on_chunk(self, chunk: Chunk) -> None:
        """Take a chunk: one of a request's, or one that acknowledges one of a response's.

        One of a request that was answered by an error, or of a response that is out, comes too late.
        """
        request_id = chunk.request_id
        try:
            if self._sending is not None and self._sending[0] == request_id:
                self._sending[1].acknowledge(chunk)
            elif request_id in self._receiving:
                self._take(chunk)
        except RemoteProtocolError as error:
            self._receiving.pop(request_id, None)
            self._send_error(request_id, "ValueError", error.reason)
        except MemoryError:
            message, _ = self._receiving.pop(request_id)
            what = f"there is no memory in the worker for {sum(message.parts):,} bytes"
            self._send_error(request_id, "MemoryError", self._of_memory(what))

    def _take(self, chunk: Chunk) -> None:
        message, parts = self._receiving[chunk.request_id]
        acknowledgement = parts.add(chunk)
        if parts.given_up:
            del self._receiving[chunk.request_id]
            self._send_error(chunk.request_id, "InterruptedError", "the request was given up")
            return
        self._writer.send(acknowledgement)
        if parts.done:
            del self._receiving[chunk.request_id]
            self.due.append((message, parts.body()))

    @property
    def expects_more(self) -> bool:
        """Whether chunks are to come."""
        return bool(self._receiving)

    def end(self) -> None:
        """Answer nothing more: the client is gone, or wants nothing more."""
        self._ended = True
        self._receiving.clear()
        self.due.clear()

    # --- what goes -----------------------------------------------------------------------------------

    def answer_due(self) -> None:
        """Answer what can be answered, in order."""
        if self._answering:
            return
        self._answering = True
        try:
            while self.due:
                message, body = self.due.popleft()
                self._answer(message, body)
        finally:
            self._answering = False

    def _answer(self, message: Request, body: Body) -> None:
        request_id = message.request_id
        try:
            with PristineBuiltins():
                answer = self._handlers[message.kind](body)
            whole = cut(answer, self._writer.max_frame_bytes)
            self._writer.send(Response(request_id, whole.value, parts=whole.sizes))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            self._send_error(request_id, type_name(error), _text(error))
        except MemoryError:
            text = self._of_memory("there is not enough memory in the worker")
            self._send_error(request_id, "MemoryError", text)
        except BaseException as error:  # whatever the code's objects do, the client must not wait for ever
            self._send_error(request_id, type_name(error), _text(error))
        else:
            self._send_parts(request_id, whole.parts)

    def _send_parts(self, request_id: str, parts: tuple[Part, ...]) -> None:
        if not parts:
            return
        sending = SendingParts(request_id, parts, chunk_bytes(self._writer.max_frame_bytes))
        self._sending = request_id, sending
        try:
            while not sending.done and not self._ended:
                # Also where nothing has to come first: a ping is not to wait for a whole body.
                while (sending.is_full or self._poller.poll(0)) and not (sending.done or self._ended):
                    self._poller.poll()
                    self._read()
                if not sending.done and not self._ended:
                    self._writer.send_chunk(sending.next_chunk())
            if sending.given_up:
                self._writer.send(sending.give_up())
        finally:
            self._sending = None

    def _of_memory(self, what: str) -> str:
        limit = exceeded_limit(MemoryError())
        if not limit and self._max_memory is not None:
            limit = f"max_memory_usage={self._max_memory}; raise it in the ExecutorConfig"
        return f"{what} ({limit})" if limit else what

    def _send_error(self, request_id: str, exception: str, text: str) -> None:
        error = RequestError(exception, text[:_MAX_ERROR_CHARS])
        self._writer.send(Response(request_id, error=error))


def _text(error: BaseException) -> str:
    if isinstance(error, LocalProtocolError):
        return encodable(error.reason)
    try:
        return encodable(str(error))
    except BaseException as second:  # its `__str__` is the code's
        return f"its text raises {type_name(second)}"
