"""The states of sessions and executions, and which may follow which. Role-blind: both ends use it."""

from enum import Enum
from typing import Final

from pyrepl3_schemas.errors import LocalProtocolError


class SessionState(Enum):
    """Where a session stands."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    CLOSING = "closing"
    CLOSED = "closed"


class ExecutionState(Enum):
    """Where an execution stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"


SESSION_MOVES: Final[dict[SessionState, frozenset[SessionState]]] = {
    SessionState.STARTING: frozenset(
        {SessionState.READY, SessionState.DEAD, SessionState.CLOSING, SessionState.CLOSED}
    ),
    SessionState.READY: frozenset({SessionState.DEAD, SessionState.CLOSING, SessionState.STARTING}),
    # A dead session starts again when a new incarnation of its worker is spawned.
    SessionState.DEAD: frozenset({SessionState.STARTING, SessionState.CLOSING, SessionState.CLOSED}),
    SessionState.CLOSING: frozenset({SessionState.CLOSED}),
    SessionState.CLOSED: frozenset(),
}

EXECUTION_MOVES: Final[dict[ExecutionState, frozenset[ExecutionState]]] = {
    ExecutionState.QUEUED: frozenset(
        {ExecutionState.RUNNING, ExecutionState.CANCELLING, ExecutionState.FINISHED}
    ),
    # Running goes back to queued when its worker died and another takes it up.
    ExecutionState.RUNNING: frozenset(
        {ExecutionState.CANCELLING, ExecutionState.FINISHED, ExecutionState.QUEUED}
    ),
    ExecutionState.CANCELLING: frozenset({ExecutionState.FINISHED}),
    ExecutionState.FINISHED: frozenset(),
}


def move_session(old: SessionState, new: SessionState) -> SessionState:
    """Give `new` when it may follow `old`.

    Raises:
        LocalProtocolError: it may not.
    """
    if new not in SESSION_MOVES[old]:
        raise LocalProtocolError(f"a session cannot go from {old.value} to {new.value}")
    return new


def move_execution(old: ExecutionState, new: ExecutionState) -> ExecutionState:
    """Give `new` when it may follow `old`.

    Raises:
        LocalProtocolError: it may not.
    """
    if new not in EXECUTION_MOVES[old]:
        raise LocalProtocolError(f"an execution cannot go from {old.value} to {new.value}")
    return new
