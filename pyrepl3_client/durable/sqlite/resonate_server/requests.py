"""Resonate's requests as exact types.

Parameters and values stay the JSON that they came as: the store never looks into them.
"""

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

I64_MAX: Final = (1 << 63) - 1
NULL: Final = b"null"
# Stands where a field of any JSON was left out (a union with None would not keep the bytes).
ABSENT: Final = Raw()

type SettledState = Literal["resolved", "rejected", "rejected_canceled", "rejected_timedout"]


def null() -> Raw:
    """Return JSON's null, the default of what may be any JSON."""
    return Raw(NULL)


class RequestHead(Struct, frozen=True, rename="camel"):
    """The part of a request's head that the response repeats."""

    corr_id: Raw = msgspec.field(default_factory=null)


class Request(Struct, frozen=True, rename="camel"):
    """The envelope. A flat request has no `head` and `data`, its fields stand beside `kind`."""

    kind: str = ""
    head: RequestHead | None = None
    data: Raw = ABSENT
    corr_id: Raw = msgspec.field(default_factory=null)


class PromiseGet(Struct, frozen=True):
    """`promise.get`, and every other request that names nothing but its subject."""

    id: str = ""


class PromiseCreate(Struct, frozen=True, rename="camel"):
    """`promise.create`, alone or as the action of a task."""

    id: str = ""
    timeout_at: int = I64_MAX
    param: Raw = msgspec.field(default_factory=null)
    tags: dict[str, str] | None = None


class PromiseSettle(Struct, frozen=True):
    """`promise.settle`, alone or as the action of a task."""

    id: str | None = None
    state: SettledState = "resolved"
    value: Raw = msgspec.field(default_factory=null)


class RegisterListener(Struct, frozen=True):
    """`promise.register_listener`."""

    awaited: str = ""
    address: str = ""


class CreateAction(PromiseCreate, frozen=True, rename="camel"):
    """A create inside `task.create`: an envelope of its own, or flat."""

    kind: str | None = None
    data: PromiseCreate | None = None

    @property
    def body(self) -> PromiseCreate:
        """The promise to create."""
        return self if self.kind is None or self.data is None else self.data


class SettleAction(PromiseSettle, frozen=True):
    """A settle inside `task.fulfill`: an envelope of its own, or flat."""

    kind: str | None = None
    data: PromiseSettle | None = None

    @property
    def body(self) -> PromiseSettle:
        """The settlement."""
        return self if self.kind is None or self.data is None else self.data


class FenceAction(Struct, frozen=True):
    """A create or settle inside `task.fence`; `kind` tells which of them `data` is."""

    kind: str | None = None
    data: Raw = ABSENT


class Awaited(Struct, frozen=True):
    """Names the promise that a suspending task waits for."""

    awaited: str | None = None


class AwaitAction(Awaited, frozen=True):
    """One promise inside `task.suspend`: an envelope of its own, or flat."""

    kind: str | None = None
    data: Awaited | None = None

    @property
    def body(self) -> Awaited:
        """The promise to wait for."""
        return self if self.kind is None or self.data is None else self.data


class TaskCreate(Struct, frozen=True):
    """`task.create`: a promise, and the task for it held by `pid` for `ttl` milliseconds."""

    pid: str = ""
    ttl: int = 60_000
    action: CreateAction = msgspec.field(default_factory=CreateAction)


class TaskAcquire(Struct, frozen=True):
    """`task.acquire`; the version that it was offered at does not matter."""

    id: str = ""
    pid: str = ""
    ttl: int = 60_000


class TaskRelease(Struct, frozen=True):
    """`task.release`."""

    id: str = ""
    version: int | None = None


class TaskFulfill(Struct, frozen=True):
    """`task.fulfill`."""

    id: str = ""
    version: int | None = None
    action: SettleAction = msgspec.field(default_factory=SettleAction)


class TaskFence(Struct, frozen=True):
    """`task.fence`: an action that counts only while the caller holds the lease."""

    id: str = ""
    version: int = 0
    action: Raw = msgspec.field(default_factory=null)


class TaskSuspend(Struct, frozen=True):
    """`task.suspend`."""

    id: str = ""
    version: int | None = None
    actions: tuple[AwaitAction, ...] = ()


class TaskRef(Struct, frozen=True):
    """A task whose lease is to be renewed."""

    id: str = ""
    version: int | None = None


class TaskHeartbeat(Struct, frozen=True):
    """`task.heartbeat`."""

    pid: str = ""
    tasks: tuple[TaskRef, ...] = ()


class ScheduleCreate(Struct, frozen=True, rename="camel"):
    """`schedule.create`."""

    id: str = ""
    cron: str = ""
    promise_id: str = ""
    promise_timeout: int = 0
    promise_param: Raw = msgspec.field(default_factory=null)
    promise_tags: dict[str, str] | None = None


class ScheduleSearch(Struct, frozen=True):
    """`schedule.search`; its filters are not looked at, as in Resonate's in-process server."""
