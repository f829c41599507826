"""The server's state machine: a request and the time in, a response and messages out."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Raw, Struct, ValidationError
from msgspec.json import Decoder
from resonate.error import ServerError

from pyrepl3_client.durable.sqlite.resonate_server.promises import Promises
from pyrepl3_client.durable.sqlite.resonate_server.requests import (
    I64_MAX,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    RegisterListener,
    Request,
    ScheduleCreate,
    ScheduleSearch,
    TaskAcquire,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskHeartbeat,
    TaskRelease,
    TaskSuspend,
)
from pyrepl3_client.durable.sqlite.resonate_server.schedules import Schedules
from pyrepl3_client.durable.sqlite.resonate_server.state import (
    PENDING_RETRY,
    PromiseRow,
    PromiseTables,
    delay_of,
    timeout_state,
)
from pyrepl3_client.durable.sqlite.resonate_server.tasks import Tasks
from pyrepl3_client.durable.sqlite.resonate_server.wire import OutgoingMessage, ServerResponse, parse_tags
from pyrepl3_client.durable.sqlite.tables.database import Database

type _Handler = Callable[[int, Raw | str], ServerResponse]


def _route[B: Struct](body: type[B], handle: Callable[[int, B], ServerResponse]) -> _Handler:
    decode = Decoder(body).decode

    def handler(now: int, data: Raw | str) -> ServerResponse:
        return handle(now, decode(data))

    return handler


class ResonateServer:
    """Applies requests and the passing of time to a store. Does no I/O but SQL, and reads no clock.

    Every method is to be called inside a transaction of its own.
    """

    def __init__(self, database: Database) -> None:
        """Work on the tables of `database`."""
        self._state: Final = PromiseTables(database)
        promises = Promises(self._state)
        tasks = Tasks(self._state, promises)
        schedules = Schedules(self._state)
        self._handlers: Final[dict[str, _Handler]] = {
            "promise.get": _route(PromiseGet, promises.get),
            "promise.create": _route(PromiseCreate, promises.create),
            "promise.settle": _route(PromiseSettle, promises.settle),
            "promise.register_listener": _route(RegisterListener, promises.register_listener),
            "task.create": _route(TaskCreate, tasks.create),
            "task.acquire": _route(TaskAcquire, tasks.acquire),
            "task.release": _route(TaskRelease, tasks.release),
            "task.fulfill": _route(TaskFulfill, tasks.fulfill),
            "task.fence": _route(TaskFence, tasks.fence),
            "task.suspend": _route(TaskSuspend, tasks.suspend),
            "task.heartbeat": _route(TaskHeartbeat, tasks.heartbeat),
            "schedule.create": _route(ScheduleCreate, schedules.create),
            "schedule.get": _route(PromiseGet, schedules.get),
            "schedule.delete": _route(PromiseGet, schedules.delete),
            "schedule.search": _route(ScheduleSearch, schedules.search),
        }

    @property
    def due(self) -> int:
        """The earliest deadline that the last call has set, in milliseconds since the epoch."""
        return self._state.due

    def apply(
        self, now: int, request: Request, body: Raw | str
    ) -> tuple[ServerResponse, Sequence[OutgoingMessage]]:
        """Do what one request asks for.

        Args:
            now: milliseconds since the epoch.
            request: its envelope.
            body: the JSON of its body.

        Raises:
            ServerError: (400) the request is unknown, malformed, or lacks a field.
        """
        self._state.reset()
        handler = self._handlers.get(request.kind)
        if handler is None:
            raise ServerError(400, f"unknown request kind: {request.kind}")
        try:
            answer = handler(now, body)
        except ValidationError as error:
            raise ServerError(400, f"malformed {request.kind}: {error}") from error
        return answer, self._state.take_messages()

    def next_due(self) -> int:
        """Return the earliest deadline in the store, `I64_MAX` when there is none."""
        (due,) = self._state.execute(
            "SELECT min(coalesce((SELECT min(due_at) FROM promises WHERE due_at IS NOT NULL), ?),"
            " coalesce((SELECT min(due_at) FROM tasks WHERE due_at IS NOT NULL), ?))",
            (I64_MAX, I64_MAX),
        ).fetchone()
        return int(due)

    def tick(self, now: int) -> Sequence[OutgoingMessage]:
        """Do what is due by `now`: settle what has timed out, take lapsed leases back, offer tasks again."""
        state = self._state
        state.reset()
        expired = self._expired(now)
        tasks: list[tuple[str, str, int]] = state.execute(
            "SELECT id, state, version FROM tasks WHERE due_at <= ? ORDER BY due_at", (now,)
        ).fetchall()
        # Step by step over all of them: a task whose own promise has timed out as well is not woken.
        settled = [state.mark_settled(p, timeout_state(p.timer), None, p.timeout_at) for p in expired]
        for promise in settled:
            state.finish_task(promise)
        for promise in settled:
            state.resume_awaiting(promise.id, now)
            state.notify_listeners(promise)
        for task_id, task_state, version in tasks:
            if task_state == "acquired":
                state.release(task_id, version, now)
        for task_id, task_state, _version in tasks:
            if task_state == "pending":
                self._offer_again(now, task_id)
        return state.take_messages()

    def _expired(self, now: int) -> list[PromiseRow]:
        rows = self._state.execute(
            "SELECT id FROM promises WHERE due_at <= ? ORDER BY due_at, n", (now,)
        ).fetchall()
        found = [self._state.find_promise(promise_id) for (promise_id,) in rows]
        return [promise for promise in found if promise is not None and promise.state == "pending"]

    def _offer_again(self, now: int, task_id: str) -> None:
        row: Any = self._state.execute(
            "UPDATE tasks SET due_at = ? WHERE id = ? AND state = 'pending' RETURNING version, target",
            (self._state.note_deadline(now + PENDING_RETRY), task_id),
        ).fetchone()
        if row is not None:
            version, target = row
            self._state.offer(target, task_id, version)

    def reclaim(self, now: int, prefix: str) -> Sequence[OutgoingMessage]:
        """Take back the leases of all tasks whose id begins with `prefix`, and offer those tasks at once.

        For the rightful owner of a session whose last one has died: it need not wait for leases to
        lapse. A holder that lives after all finds its version refused.
        """
        state = self._state
        state.reset()
        tasks: list[tuple[str, str, int]] = state.execute(
            # Only what is alive has a `due_at`, so the index holds these and not the history.
            "SELECT id, state, version FROM tasks WHERE due_at IS NOT NULL AND substr(id, 1, ?) = ?"
            " ORDER BY due_at",
            (len(prefix), prefix),
        ).fetchall()
        for task_id, task_state, version in tasks:
            if task_state == "acquired":
                state.release(task_id, version, now)
            elif not self._deferred(now, task_id):
                self._offer_again(now, task_id)
        return state.take_messages()

    def _deferred(self, now: int, task_id: str) -> bool:
        promise = self._state.find_promise(task_id)
        delay = None if promise is None else delay_of(parse_tags(promise.tags))
        return delay is not None and now < delay
