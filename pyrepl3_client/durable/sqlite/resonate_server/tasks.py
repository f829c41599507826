"""What the `task.*` requests do.

A holder that names another version than the task's is refused with 409, also where Resonate's
in-process server (which has no second process to fear) looks at the lease alone: an owner that was
paused, and whose task has been taken over since, can neither suspend, end nor release what another one
holds now. To acquire, any offer counts: the lease is granted under the task's own version.
"""

from typing import Final

from msgspec import UNSET
from msgspec.json import Decoder
from resonate.error import ServerError

from pyrepl3_client.durable.sqlite.resonate_server.promises import Promises
from pyrepl3_client.durable.sqlite.resonate_server.requests import (
    I64_MAX,
    NULL,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    TaskAcquire,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskHeartbeat,
    TaskRelease,
    TaskSuspend,
)
from pyrepl3_client.durable.sqlite.resonate_server.state import PromiseRow, PromiseTables, TaskRow
from pyrepl3_client.durable.sqlite.resonate_server.wire import (
    FenceResult,
    FenceResultData,
    ResponseData,
    ServerResponse,
    clamp,
    parse_fence,
    required,
    saturating_add,
)

_NOT_FOUND: Final = ServerResponse(404)
_CONFLICT: Final = ServerResponse(409)
_OK: Final = ServerResponse(200)
_EXISTS: Final = ServerResponse(409, ResponseData(error="Already exists"))
# Milliseconds for which a heartbeat renews a lease that has none of its own.
_DEFAULT_TTL: Final = 30_000

_create: Final = Decoder(PromiseCreate)
_settle: Final = Decoder(PromiseSettle)
_subject: Final = Decoder(PromiseGet)


class Tasks:
    """Leases tasks to workers, and takes their outcomes."""

    def __init__(self, state: PromiseTables, promises: Promises) -> None:
        """Work on `state`; fenced actions are done by `promises`."""
        self._state: Final = state
        self._promises: Final = promises

    def create(self, now: int, request: TaskCreate) -> ServerResponse:
        """Create a promise with its task, held by the caller; or acquire an existing, free task."""
        state = self._state
        pid = required(request.pid, "pid")
        ttl = clamp(request.ttl)
        body = request.action.body
        promise = state.current_promise(now, required(body.id, "id"))
        task = state.find_task(body.id)
        if task is not None and promise is not None:
            if task.state == "pending":
                return self._lease(now, task, promise, pid, ttl)
            if task.state == "fulfilled":
                return _leased(200, task, promise, state)
            return _EXISTS
        if promise is not None:
            return _EXISTS
        promise = state.insert_promise(body, now, scheduled=True)
        if promise.state != "pending":
            task = state.insert_task(promise, "fulfilled", None, None, None)
            return ServerResponse(200, ResponseData(task=task.record(), promise=promise.record(), preload=[]))
        task = state.insert_task(promise, "acquired", pid, ttl, saturating_add(now, ttl))
        return _leased(201, task, promise, state)

    def acquire(self, now: int, request: TaskAcquire) -> ServerResponse:
        """Lease an offered task."""
        task_id = required(request.id, "id")
        promise = self._state.current_promise(now, task_id)
        task = self._state.find_task(task_id)
        if task is None or promise is None:
            return ServerResponse(404, ResponseData(error=f"task {task_id} not found"))
        if task.state != "pending":
            state = task.state.capitalize()
            return ServerResponse(409, ResponseData(error=f"task not in pending state (state: {state})"))
        # A lease that ends in the past would be taken back before it is used.
        return self._lease(now, task, promise, request.pid, max(clamp(request.ttl), 1))

    def _lease(self, now: int, task: TaskRow, promise: PromiseRow, pid: str, ttl: int) -> ServerResponse:
        state = self._state
        state.execute(
            "UPDATE tasks SET state = 'acquired', pid = ?, ttl = ?, resumed = 0, due_at = ? WHERE id = ?",
            (pid, ttl, state.note_deadline(saturating_add(now, ttl)), task.id),
        )
        return _leased(200, TaskRow(task.id, "acquired", task.version, pid, ttl, 0), promise, state)

    def release(self, now: int, request: TaskRelease) -> ServerResponse:
        """Release a lease; the task is offered again at once."""
        task_id = required(request.id, "id")
        self._state.current_promise(now, task_id)
        task = self._state.find_task(task_id)
        if task is None:
            return _NOT_FOUND
        if not _holds(task, request.version):
            return _CONFLICT
        self._state.release(task_id, task.version, now)
        return _OK

    def fulfill(self, now: int, request: TaskFulfill) -> ServerResponse:
        """End a task by settling its promise."""
        state = self._state
        task_id = required(request.id, "id")
        state.current_promise(now, task_id)
        task = state.find_task(task_id)
        if task is None:
            return _NOT_FOUND
        if not _holds(task, request.version):
            return _CONFLICT
        body = request.action.body
        promise_id = task_id if body.id is None else body.id
        promise = state.find_promise(promise_id)
        if promise is not None and promise.state == "pending":
            value = bytes(body.value)
            promise = state.mark_settled(promise, body.state, None if value == NULL else value, now)
        state.finish_task_of(task_id)
        if promise is not None:
            state.resume_awaiting(promise_id, now)
            state.notify_listeners(promise)
        return ServerResponse(200, ResponseData(promise=None if promise is None else promise.record()))

    def fence(self, now: int, request: TaskFence) -> ServerResponse:
        """Create or settle a promise, if the caller still holds the task at that version."""
        state = self._state
        task_id = required(request.id, "id")
        own = state.current_promise(now, task_id)
        task = state.find_task(task_id)
        kind, body = parse_fence(request.action)
        if task is None or not _holds(task, request.version):
            # Refused, but the promise it names has been touched.
            state.current_promise(now, _subject.decode(body).id)
            return _NOT_FOUND if task is None else _CONFLICT
        if kind == "promise.create":
            answer = self._promises.create(now, _create.decode(body))
        elif kind == "promise.settle":
            answer = self._promises.settle(now, _settle.decode(body))
        else:
            raise ServerError(400, f"unknown fence action kind: {kind}")
        promise = answer.data.promise
        fenced = FenceResult(FenceResultData(None if promise is UNSET else promise))
        return ServerResponse(200, ResponseData(action=fenced, preload=state.preload(own)))

    def suspend(self, now: int, request: TaskSuspend) -> ServerResponse:
        """Release a lease until one of the awaited promises settles; 300 when one has already."""
        state = self._state
        task_id = required(request.id, "id")
        own = state.current_promise(now, task_id)
        awaited = [action.body.awaited for action in request.actions]
        promises = [state.current_promise(now, promise_id) for promise_id in awaited if promise_id]
        task = state.find_task(task_id)
        if task is None:
            return _NOT_FOUND
        if not _holds(task, request.version):
            return _CONFLICT
        if task.resumed:
            state.execute("UPDATE tasks SET resumed = 0 WHERE id = ?", (task_id,))
            return ServerResponse(300, ResponseData(redirect=True, preload=state.preload(own)))
        settled = False
        for promise in promises:
            if promise is None:
                continue
            if promise.state == "pending":
                state.execute(
                    "INSERT OR IGNORE INTO callbacks (promise, task) VALUES (?, ?)", (promise.id, task_id)
                )
            else:
                settled = True
        if settled:
            return ServerResponse(300, ResponseData(redirect=True, preload=state.preload(own)))
        state.execute(
            "UPDATE tasks SET state = 'suspended', pid = NULL, ttl = NULL, due_at = NULL WHERE id = ?",
            (task_id,),
        )
        return _OK

    def heartbeat(self, now: int, request: TaskHeartbeat) -> ServerResponse:
        """Renew the leases that `pid` still holds."""
        state = self._state
        pid = required(request.pid, "pid")
        for ref in request.tasks:
            renewed = state.execute(
                "UPDATE tasks SET due_at = ? + min(coalesce(ttl, ?), ?)"
                " WHERE id = ? AND state = 'acquired' AND pid = ? AND version = coalesce(?, version)"
                " RETURNING due_at",
                (now, _DEFAULT_TTL, I64_MAX - now, required(ref.id, "id"), pid, ref.version),
            ).fetchone()
            if renewed is not None:
                state.note_deadline(renewed[0])
        return _OK


def _holds(task: TaskRow, version: int | None) -> bool:
    return task.state == "acquired" and version in (None, task.version)


def _leased(status: int, task: TaskRow, promise: PromiseRow, state: PromiseTables) -> ServerResponse:
    return ServerResponse(
        status, ResponseData(task=task.record(), promise=promise.record(), preload=state.preload(promise))
    )
