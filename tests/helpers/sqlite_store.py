"""What the store's tests share: a clock that is set by hand, and requests as Resonate writes them."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from pyrepl3_client.durable.sqlite import SqliteConnection
from pyrepl3_client.durable.sqlite.resonate_server.server import ResonateServer
from pyrepl3_client.durable.sqlite.resonate_server.wire import OutgoingMessage, encode_response, parse_request
from pyrepl3_client.durable.sqlite.tables.database import Database

START = 1_700_000_000_000
"""Where the tests' clocks begin, in milliseconds since the epoch."""
LATER = 1 << 60


class Clock:
    """Tells the time that it was set to."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds


@contextmanager
def as_unprivileged_user() -> Generator[None]:
    """Become an unprivileged user, whom file modes stop; they do not stop root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def request(kind: str, data: object, corr_id: object = "c-1") -> str:
    return msgspec.json.encode({"kind": kind, "head": {"corrId": corr_id}, "data": data}).decode()


def action(kind: str, data: object) -> dict[str, Any]:
    return {"kind": kind, "head": {"corrId": "inner"}, "data": data}


def create(promise_id: str, *, target: str | None = None, timeout_at: int = LATER, **tags: str) -> Any:
    """Return the body of a `promise.create`; tags are named without their `resonate:`."""
    named = {f"resonate:{name}": value for name, value in tags.items()}
    if target is not None:
        named["resonate:target"] = target
    return {"id": promise_id, "timeoutAt": timeout_at, "param": {"data": "cGFyYW0="}, "tags": named}


def settle(promise_id: str, state: str = "resolved", value: object = None) -> Any:
    return {"id": promise_id, "state": state, "value": value}


def task_create(promise: Any, pid: str = "p1", ttl: int = 60_000) -> Any:
    return {"pid": pid, "ttl": ttl, "action": action("promise.create", promise)}


def suspend(task_id: str, awaited: Sequence[str], version: int | None = None) -> Any:
    actions = [
        action("promise.register_callback", {"awaited": other, "awaiter": task_id}) for other in awaited
    ]
    body: dict[str, Any] = {"id": task_id, "actions": actions}
    return body if version is None else {**body, "version": version}


def apply(
    database: Database, machine: ResonateServer, now: int, text: str
) -> tuple[Any, list[OutgoingMessage]]:
    """Apply a request as the connection does; return the decoded answer, and the messages."""
    envelope, body = parse_request(text)
    with database.transaction():
        answer, messages = machine.apply(now, envelope, body)
    return msgspec.json.decode(encode_response(envelope, answer)), list(messages)


async def ask(connection: SqliteConnection, kind: str, data: object) -> tuple[int, Any]:
    """Send a request; return the answer's status and body."""
    answer: Any = msgspec.json.decode(await connection.send(request(kind, data)))
    assert answer["kind"] == kind
    assert answer["head"]["corrId"] == "c-1"
    return answer["head"]["status"], answer["data"]


class Watched(SqliteConnection):
    """A connection that a test can wait with for a kind of request to have been answered, or to fail."""

    _answered: defaultdict[str, asyncio.Event] | None = None

    def answered(self, kind: str) -> asyncio.Event:
        if self._answered is None:
            self._answered = defaultdict(asyncio.Event)
        return self._answered[kind]

    async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
        try:
            return await super().send(req, headers)
        finally:
            self.answered(msgspec.json.decode(req)["kind"]).set()
