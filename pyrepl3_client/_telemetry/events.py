"""The facts of a session that its operator may want to know, as data: what `on_event` gets."""

import time
from typing import Literal

import msgspec

from pyrepl3_client.errors import DeathCertificate

type CallOutcome = Literal["ok", "error", "refused", "abandoned"]
"""How a host call ended: with a value, with an exception, without having been made, or given up."""

type ConnectionOutcome = Literal["ok", "refused", "failed"]
"""How a connection ended: in order; refused, by a rule or since it asked for nothing sensible; otherwise."""

type EventState = Literal["started", "done", "failed"]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """What every event has. `msgspec.json.encode(event)` makes JSON of it, `event` being its kind."""

    session_id: str
    """The session's id; empty for a worker that waits in a pool."""
    worker: int | None = None
    """The process id of the worker, where there is one."""
    incarnation: int | None = None
    """Its number in the session, from 1."""
    time: float = msgspec.field(default_factory=time.time)
    """When it happened, in seconds since 1970."""


class SpawnEvent(_Event, frozen=True, kw_only=True, tag="spawn"):
    """A worker's process was started for the session, or taken from a pool."""

    warm: bool = False
    """Whether it had waited in a pool."""


class ReadyEvent(_Event, frozen=True, kw_only=True, tag="ready"):
    """A worker takes code."""

    seconds: float
    """From its spawn."""
    python: str
    """Its interpreter's version."""


class StopEvent(_Event, frozen=True, kw_only=True, tag="stop"):
    """A worker has ended as the session wanted: it was closed or restarted, or could not be filled."""

    reason: str
    """Why, in words."""


class DeathEvent(_Event, frozen=True, kw_only=True, tag="death"):
    """A worker has ended, and the session, or the pool that it waited in, had not asked for that."""

    certificate: DeathCertificate
    """How and why, as far as it is known, and what ran."""
    execution_id: str | None = None
    """The execution that ran, if one did."""


class RecoveryEvent(_Event, frozen=True, kw_only=True, tag="recovery"):
    """A session comes back from a worker's death, or is opened again from its record."""

    state: EventState
    """`started`; then `done`, or `failed`: the session stays dead then."""
    reopened: bool = False
    """Whether it is opened again, no worker having died."""
    seconds: float = 0.0
    """How long it took."""
    restored_from: str | None = None
    """The checkpoint that was restored."""
    replayed: tuple[str, ...] = ()
    """Ids of the executions that were run again."""
    lost: tuple[str, ...] = ()
    """Names that are gone."""
    skipped: tuple[str, ...] = ()
    """Ids of the executions that were left out, or went another way."""
    summary: str = ""
    """The report in a few lines, as `str(session.recoveries[-1])`; why it failed, if it did."""

    @property
    def is_whole(self) -> bool:
        """Whether everything came back."""
        return not self.lost and not self.skipped


class CheckpointEvent(_Event, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint was taken, or could not be."""

    checkpoint_id: str
    state: EventState
    """`done` or `failed`."""
    automatic: bool
    """Whether the session took it by itself; it raises nothing then."""
    seconds: float = 0.0
    """How long it took."""
    size: int = 0
    """Bytes that were new in it."""
    unsaved: tuple[str, ...] = ()
    """Names that it does not hold."""
    message: str = ""
    """Why it failed."""


class CallEvent(_Event, frozen=True, kw_only=True, tag="call"):
    """A host function was called and has ended. One that is answered from the record is not called."""

    execution_id: str
    call_id: str
    name: str
    """The host function's."""
    outcome: CallOutcome
    seconds: float
    """From the call's arrival; what its approval took is in it."""
    attempt: int = 1
    """From 1; above it, an earlier outcome is not known."""
    error_type: str = ""
    """The exception's, where there is one."""
    message: str = ""
    """The exception's text."""


class StoreEvent(_Event, frozen=True, kw_only=True, tag="store"):
    """The store gave trouble: something could not be recorded, or the session has another owner now."""

    what: str
    """What could not be done, in words."""
    message: str
    """What the store said."""
    lost: bool = False
    """Whether something is lost by it, or the session; else it is tried again, or costs only time."""
    execution_id: str | None = None


class NetworkEvent(_Event, frozen=True, kw_only=True, tag="network"):
    """A connection has ended that the code made through the proxy of its policy (`SandboxPolicy.hosts`)."""

    host: str
    """A name or an address; empty if what came was no request."""
    port: int
    method: str
    """CONNECT (a tunnel, as for https), or the method of plain HTTP."""
    outcome: ConnectionOutcome
    message: str = ""
    """Why it was refused, or failed."""
    sent: int = 0
    """Bytes to the host."""
    received: int = 0
    """Bytes from the host."""
    seconds: float = 0.0
    """How long it took."""


type SessionEvent = (
    SpawnEvent
    | ReadyEvent
    | StopEvent
    | DeathEvent
    | RecoveryEvent
    | CheckpointEvent
    | CallEvent
    | StoreEvent
    | NetworkEvent
)
"""What `on_event` gets."""
