"""What the `promise.*` requests do."""

from typing import Final

from pyrepl3_client.durable.sqlite.resonate_server.requests import (
    NULL,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    RegisterListener,
)
from pyrepl3_client.durable.sqlite.resonate_server.state import (
    PENDING_RETRY,
    PromiseRow,
    PromiseTables,
    delay_of,
)
from pyrepl3_client.durable.sqlite.resonate_server.wire import ResponseData, ServerResponse, required


class Promises:
    """Creates, reads, settles and watches promises."""

    def __init__(self, state: PromiseTables) -> None:
        """Work on `state`."""
        self._state: Final = state

    def get(self, now: int, request: PromiseGet) -> ServerResponse:
        """Read a promise."""
        promise_id = required(request.id, "id")
        return _found(self._state.current_promise(now, promise_id), promise_id)

    def create(self, now: int, request: PromiseCreate) -> ServerResponse:
        """Create a promise, or return the one of that id; one with a target gets a task, offered there."""
        state = self._state
        existing = state.current_promise(now, required(request.id, "id"))
        if existing is not None:
            return ServerResponse(200, ResponseData(promise=existing.record()))
        # Only a promise with an address is timed out by the timer, here as on Resonate's server; a bare
        # one is when a request next touches it.
        addressed = "resonate:target" in (request.tags or {})
        promise = state.insert_promise(request, now, scheduled=addressed)
        if promise.state != "pending":
            state.finish_task(promise)
            return ServerResponse(200, ResponseData(promise=promise.record()))
        if addressed:
            delay = delay_of(request.tags or {})
            if delay is not None and now < delay:
                state.insert_task(promise, "pending", None, None, delay)
            else:
                state.insert_task(promise, "pending", None, None, now + PENDING_RETRY)
                state.offer(promise.target, promise.id, 0)
        return ServerResponse(201, ResponseData(promise=promise.record()))

    def settle(self, now: int, request: PromiseSettle) -> ServerResponse:
        """Settle a promise; a settled one keeps its first settlement, and returns it."""
        promise_id = required(request.id, "id")
        promise = self._state.current_promise(now, promise_id)
        if promise is not None and promise.state == "pending":
            value = bytes(request.value)
            promise = self._state.settle(promise, request.state, None if value == NULL else value, now, now)
        return _found(promise, promise_id)

    def register_listener(self, now: int, request: RegisterListener) -> ServerResponse:
        """Have `address` told when the promise settles, and read it as it is now."""
        promise_id = required(request.awaited, "awaited")
        address = required(request.address, "address")
        promise = self._state.current_promise(now, promise_id)
        if promise is not None and promise.state == "pending":
            self._state.execute(
                "INSERT OR IGNORE INTO listeners (promise, address) VALUES (?, ?)", (promise_id, address)
            )
        return _found(promise, promise_id)


def _found(promise: PromiseRow | None, promise_id: str) -> ServerResponse:
    if promise is None:
        return ServerResponse(404, ResponseData(error=f"promise {promise_id} not found"))
    return ServerResponse(200, ResponseData(promise=promise.record()))
