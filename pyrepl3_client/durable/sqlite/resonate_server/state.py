"""Promises and tasks in their tables, and what follows when a promise settles."""

import contextlib
from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, Raw, Struct

from pyrepl3_client.durable.sqlite.resonate_server.requests import I64_MAX, NULL, PromiseCreate, SettledState
from pyrepl3_client.durable.sqlite.resonate_server.wire import (
    OutgoingMessage,
    Promise,
    PromiseState,
    Task,
    TaskState,
    clamp,
    encode_tags,
    execute_message,
    unblock_body,
)
from pyrepl3_client.durable.sqlite.tables.database import Database

# Milliseconds after which a task that was not acquired is offered again.
PENDING_RETRY: Final = 30_000
_NULL: Final = Raw(NULL)


class PromiseRow(Struct, frozen=True):
    """A promise as its table holds it. `param`, `value` and `tags` are JSON, None is null."""

    id: str
    state: PromiseState
    param: bytes | None
    value: bytes | None
    tags: bytes
    timeout_at: int
    created_at: int
    settled_at: int | None
    target: str | None
    branch: str | None
    timer: int

    def record(self) -> Promise:
        """Return it in the form that crosses the wire."""
        return Promise(
            self.id,
            self.state,
            _NULL if self.param is None else Raw(self.param),
            _NULL if self.value is None else Raw(self.value),
            Raw(self.tags),
            self.timeout_at,
            self.created_at,
            UNSET if self.settled_at is None else self.settled_at,
        )


class TaskRow(Struct, frozen=True):
    """A task as its table holds it; `resumed`: something that it awaited has settled since."""

    id: str
    state: TaskState
    version: int
    pid: str | None
    ttl: int | None
    resumed: int

    def record(self) -> Task:
        """Return it in the form that crosses the wire."""
        return Task(
            self.id,
            self.state,
            self.version,
            self.id,
            UNSET if self.pid is None else self.pid,
            UNSET if self.ttl is None else self.ttl,
        )


_PROMISE: Final = (
    "SELECT id, state, param, value, tags, timeout_at, created_at, settled_at, target, branch, timer"
    " FROM promises "
)


class PromiseTables:
    """The tables, within one transaction at a time.

    `messages` are what the transaction sends; `due` is the earliest deadline that it has set.
    """

    def __init__(self, database: Database) -> None:
        """Work on the tables of `database`."""
        self.execute: Final = database.execute
        self._messages: dict[tuple[str, str, str], OutgoingMessage] = {}
        self.due = I64_MAX

    # --- messages and deadlines ---

    def reset(self) -> None:
        """Forget what an earlier transaction, perhaps a failed one, has left."""
        self._messages.clear()
        self.due = I64_MAX

    def take_messages(self) -> Sequence[OutgoingMessage]:
        """Hand over the messages, in order."""
        messages = list(self._messages.values())
        self._messages.clear()
        return messages

    def offer(self, target: str | None, task_id: str, version: int) -> None:
        """Have a worker at `target` execute the task; within a transaction the newest offer counts."""
        if target is not None:
            self._messages["execute", "", task_id] = execute_message(target, task_id, version)

    def note_deadline(self, at: int) -> int:
        """Note a deadline that is about to be stored, and return it."""
        at = clamp(at)
        self.due = min(self.due, at)
        return at

    # --- promises ---

    def find_promise(self, promise_id: str) -> PromiseRow | None:
        """Look up a promise."""
        row = self.execute(_PROMISE + "WHERE id = ?", (promise_id,)).fetchone()
        return None if row is None else PromiseRow(*row)

    def current_promise(self, now: int, promise_id: str) -> PromiseRow | None:
        """Look up a promise, settling it first when its time is over."""
        promise = self.find_promise(promise_id)
        if promise is None or promise.state != "pending" or now < promise.timeout_at:
            return promise
        return self.settle(promise, timeout_state(promise.timer), None, promise.timeout_at, now)

    def insert_promise(self, request: PromiseCreate, now: int, *, scheduled: bool) -> PromiseRow:
        """Store a new promise, settled already when its time is over.

        Args:
            request: what to create.
            now: milliseconds since the epoch.
            scheduled: settle it by the timer when its time is over, not only when next touched.
        """
        tags = request.tags or {}
        timeout_at = clamp(request.timeout_at)
        timer = int(tags.get("resonate:timer") == "true")
        late = now >= timeout_at
        param = bytes(request.param)
        row = PromiseRow(
            request.id,
            timeout_state(timer) if late else "pending",
            None if param == NULL else param,
            None,
            encode_tags(tags),
            timeout_at,
            timeout_at if late else now,
            timeout_at if late else None,
            tags.get("resonate:target"),
            tags.get("resonate:branch"),
            timer,
        )
        self.execute(
            "INSERT INTO promises (id, state, param, value, tags, timeout_at, created_at, settled_at,"
            " target, branch, timer, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.id,
                row.state,
                row.param,
                row.value,
                row.tags,
                row.timeout_at,
                row.created_at,
                row.settled_at,
                row.target,
                row.branch,
                row.timer,
                self.note_deadline(timeout_at) if scheduled and not late else None,
            ),
        )
        return row

    def preload(self, promise: PromiseRow | None) -> list[Promise]:
        """Return the other promises of the same branch: those a worker will ask for first."""
        if promise is None or promise.branch is None:
            return []
        rows = self.execute(
            _PROMISE + "WHERE branch = ? AND id <> ? ORDER BY n", (promise.branch, promise.id)
        ).fetchall()
        return [PromiseRow(*row).record() for row in rows]

    # --- settling, in steps: the timer takes each step for all its promises before the next one ---

    def settle(
        self, promise: PromiseRow, state: SettledState, value: bytes | None, settled_at: int, now: int
    ) -> PromiseRow:
        """Settle a pending promise and do all that follows from it."""
        settled = self.mark_settled(promise, state, value, settled_at)
        self.finish_task(settled)
        self.resume_awaiting(settled.id, now)
        self.notify_listeners(settled)
        return settled

    def mark_settled(
        self, promise: PromiseRow, state: SettledState, value: bytes | None, settled_at: int
    ) -> PromiseRow:
        """Write the settlement, and nothing of what follows from it."""
        self.execute(
            "UPDATE promises SET state = ?, value = ?, settled_at = ?, due_at = NULL WHERE id = ?",
            (state, value, settled_at, promise.id),
        )
        return PromiseRow(
            promise.id,
            state,
            promise.param,
            value,
            promise.tags,
            promise.timeout_at,
            promise.created_at,
            settled_at,
            promise.target,
            promise.branch,
            promise.timer,
        )

    def finish_task(self, promise: PromiseRow) -> None:
        """End the task whose promise has settled; what it awaited no longer concerns it."""
        if not self.finish_task_of(promise.id) and promise.target is not None:
            self.execute(
                "INSERT OR IGNORE INTO tasks (id, state, version, resumed, target)"
                " VALUES (?, 'fulfilled', 0, 0, ?)",
                (promise.id, promise.target),
            )

    def finish_task_of(self, promise_id: str) -> bool:
        """End a task unless it has ended; return whether there was something to end."""
        cursor = self.execute(
            "UPDATE tasks SET state = 'fulfilled', pid = NULL, ttl = NULL, resumed = 0, due_at = NULL"
            " WHERE id = ? AND state <> 'fulfilled'",
            (promise_id,),
        )
        if not cursor.rowcount:
            return False
        self.execute("DELETE FROM callbacks WHERE task = ?", (promise_id,))
        return True

    def resume_awaiting(self, promise_id: str, now: int) -> None:
        """Wake the tasks that are suspended on the promise; mark those as resumed that are not."""
        rows = self.execute(
            "DELETE FROM callbacks WHERE promise = ? RETURNING task", (promise_id,)
        ).fetchall()
        for (task_id,) in rows:
            woken = self.execute(
                "UPDATE tasks SET state = 'pending', version = version + 1, resumed = 1, due_at = ?"
                " WHERE id = ? AND state = 'suspended' RETURNING version, target",
                (self.note_deadline(now + PENDING_RETRY), task_id),
            ).fetchone()
            if woken is None:
                self.execute("UPDATE tasks SET resumed = 1 WHERE id = ? AND state <> 'fulfilled'", (task_id,))
            else:
                version, target = woken
                self.offer(target, task_id, version)

    def notify_listeners(self, promise: PromiseRow) -> None:
        """Send a message to every address that registered for the promise."""
        rows = self.execute(
            "DELETE FROM listeners WHERE promise = ? RETURNING address", (promise.id,)
        ).fetchall()
        if rows:
            body = unblock_body(promise.record())
            for (address,) in rows:
                self._messages["unblock", address, promise.id] = OutgoingMessage(address, body)

    # --- tasks ---

    def find_task(self, task_id: str) -> TaskRow | None:
        """Look up a task."""
        row = self.execute(
            "SELECT id, state, version, pid, ttl, resumed FROM tasks WHERE id = ?", (task_id,)
        ).fetchone()
        return None if row is None else TaskRow(*row)

    def insert_task(
        self, promise: PromiseRow, state: TaskState, pid: str | None, ttl: int | None, due_at: int | None
    ) -> TaskRow:
        """Store the task of a new promise, at version 0."""
        self.execute(
            "INSERT INTO tasks (id, state, version, pid, ttl, resumed, target, due_at)"
            " VALUES (?, ?, 0, ?, ?, 0, ?, ?)",
            (
                promise.id,
                state,
                pid,
                ttl,
                promise.target,
                None if due_at is None else self.note_deadline(due_at),
            ),
        )
        return TaskRow(promise.id, state, 0, pid, ttl, 0)

    def release(self, task_id: str, version: int, now: int) -> bool:
        """Take the lease of an acquired task away and offer the task anew, under its next version."""
        row = self.execute(
            "UPDATE tasks SET state = 'pending', version = version + 1, pid = NULL, ttl = NULL, due_at = ?"
            " WHERE id = ? AND state = 'acquired' AND version = ? RETURNING version, target",
            (self.note_deadline(now + PENDING_RETRY), task_id, version),
        ).fetchone()
        if row is None:
            return False
        new_version, target = row
        self.offer(target, task_id, new_version)
        return True


def timeout_state(timer: int) -> SettledState:
    """Return how a promise ends when its time is over: a timer has then done its work."""
    return "resolved" if timer else "rejected_timedout"


def delay_of(tags: dict[str, str]) -> int | None:
    """Return the time before which the task is not to be offered, in milliseconds since the epoch."""
    with contextlib.suppress(ValueError):
        return int(tags.get("resonate:delay", ""))
    return None
