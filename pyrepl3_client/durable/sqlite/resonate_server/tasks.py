"""What the `task.*` requests do.

A holder that names another version than the task's is refused with 409, also where Resonate's
in-process server (which has no second process to fear) looks at the lease alone: an owner that was
paused, and whose task has been taken over since, can neither suspend, end nor release what is another's
now. To acquire, an old offer is as good as a new one: the lease is given under the task's own version.
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
    Answer,
    Data,
    Fenced,
    FencedData,
    clamp,
    parse_fence,
    required,
    saturating_add,
)

_GONE: Final = Answer(404)
_REFUSED: Final = Answer(409)
_DONE: Final = Answer(200)
_EXISTS: Final = Answer(409, Data(error="Already exists"))
# Milliseconds for which a heartbeat renews a lease that has none of its own.
_DEFAULT_TTL: Final = 30_000

_create: Final = Decoder(PromiseCreate)
_settle: Final = Decoder(PromiseSettle)
_subject: Final = Decoder(PromiseGet)


class Tasks:
    """Leases tasks to workers, and has their outcomes."""

    def __init__(self, state: PromiseTables, promises: Promises) -> None:
        """Work on `state`; fenced actions are done by `promises`."""
        self._state: Final = state
        self._promises: Final = promises

    def create(self, now: int, request: TaskCreate) -> Answer:
        """Create a promise with its task, held by the caller; or take up a task that nobody holds."""
        state = self._state
        pid = required(request.pid, "pid")
        ttl = clamp(request.ttl)
        body = request.action.body
        promise = state.promise_now(now, required(body.id, "id"))
        task = state.task(body.id)
        if task is not None and promise is not None:
            if task.state == "pending":
                return self._hand_out(now, task, promise, pid, ttl)
            if task.state == "fulfilled":
                return _held(200, task, promise, state)
            return _EXISTS
        if promise is not None:
            return _EXISTS
        promise = state.insert_promise(body, now, scheduled=True)
        if promise.state != "pending":
            task = state.insert_task(promise, "fulfilled", None, None, None)
            return Answer(200, Data(task=task.record(), promise=promise.record(), preload=[]))
        task = state.insert_task(promise, "acquired", pid, ttl, saturating_add(now, ttl))
        return _held(201, task, promise, state)

    def acquire(self, now: int, request: TaskAcquire) -> Answer:
        """Lease an offered task."""
        task_id = required(request.id, "id")
        promise = self._state.promise_now(now, task_id)
        task = self._state.task(task_id)
        if task is None or promise is None:
            return Answer(404, Data(error=f"task {task_id} not found"))
        if task.state != "pending":
            state = task.state.capitalize()
            return Answer(409, Data(error=f"task not in pending state (state: {state})"))
        # A lease that ends in the past would be taken back before it is used.
        return self._hand_out(now, task, promise, request.pid, max(clamp(request.ttl), 1))

    def _hand_out(self, now: int, task: TaskRow, promise: PromiseRow, pid: str, ttl: int) -> Answer:
        state = self._state
        state.execute(
            "UPDATE tasks SET state = 'acquired', pid = ?, ttl = ?, resumed = 0, due_at = ? WHERE id = ?",
            (pid, ttl, state.deadline(saturating_add(now, ttl)), task.id),
        )
        return _held(200, TaskRow(task.id, "acquired", task.version, pid, ttl, 0), promise, state)

    def release(self, now: int, request: TaskRelease) -> Answer:
        """Give a lease back; the task is offered again at once."""
        task_id = required(request.id, "id")
        self._state.promise_now(now, task_id)
        task = self._state.task(task_id)
        if task is None:
            return _GONE
        if not _holds(task, request.version):
            return _REFUSED
        self._state.release(task_id, task.version, now)
        return _DONE

    def fulfill(self, now: int, request: TaskFulfill) -> Answer:
        """End a task by settling its promise."""
        state = self._state
        task_id = required(request.id, "id")
        state.promise_now(now, task_id)
        task = state.task(task_id)
        if task is None:
            return _GONE
        if not _holds(task, request.version):
            return _REFUSED
        body = request.action.body
        promise_id = task_id if body.id is None else body.id
        promise = state.promise(promise_id)
        if promise is not None and promise.state == "pending":
            value = bytes(body.value)
            promise = state.mark_settled(promise, body.state, None if value == NULL else value, now)
        state.finish_task_of(task_id)
        if promise is not None:
            state.resume_awaiting(promise_id, now)
            state.notify_listeners(promise)
        return Answer(200, Data(promise=None if promise is None else promise.record()))

    def fence(self, now: int, request: TaskFence) -> Answer:
        """Create or settle a promise, if the caller still holds the task at that version."""
        state = self._state
        task_id = required(request.id, "id")
        own = state.promise_now(now, task_id)
        task = state.task(task_id)
        kind, body = parse_fence(request.action)
        if task is None or not _holds(task, request.version):
            # Refused, but the promise it names has been touched.
            state.promise_now(now, _subject.decode(body).id)
            return _GONE if task is None else _REFUSED
        if kind == "promise.create":
            answer = self._promises.create(now, _create.decode(body))
        elif kind == "promise.settle":
            answer = self._promises.settle(now, _settle.decode(body))
        else:
            raise ServerError(400, f"unknown fence action kind: {kind}")
        promise = answer.data.promise
        fenced = Fenced(FencedData(None if promise is UNSET else promise))
        return Answer(200, Data(action=fenced, preload=state.preload(own)))

    def suspend(self, now: int, request: TaskSuspend) -> Answer:
        """Give a lease back until one of the awaited promises settles; 300 when one has already."""
        state = self._state
        task_id = required(request.id, "id")
        own = state.promise_now(now, task_id)
        awaited = [action.body.awaited for action in request.actions]
        promises = [state.promise_now(now, promise_id) for promise_id in awaited if promise_id]
        task = state.task(task_id)
        if task is None:
            return _GONE
        if not _holds(task, request.version):
            return _REFUSED
        if task.resumed:
            state.execute("UPDATE tasks SET resumed = 0 WHERE id = ?", (task_id,))
            return Answer(300, Data(redirect=True, preload=state.preload(own)))
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
            return Answer(300, Data(redirect=True, preload=state.preload(own)))
        state.execute(
            "UPDATE tasks SET state = 'suspended', pid = NULL, ttl = NULL, due_at = NULL WHERE id = ?",
            (task_id,),
        )
        return _DONE

    def heartbeat(self, now: int, request: TaskHeartbeat) -> Answer:
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
                state.deadline(renewed[0])
        return _DONE


def _holds(task: TaskRow, version: int | None) -> bool:
    return task.state == "acquired" and version in (None, task.version)


def _held(status: int, task: TaskRow, promise: PromiseRow, state: PromiseTables) -> Answer:
    return Answer(status, Data(task=task.record(), promise=promise.record(), preload=state.preload(promise)))
