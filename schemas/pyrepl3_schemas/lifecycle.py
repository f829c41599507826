"""The states of sessions and executions, and the moves between them that are allowed. For both sides."""

from enum import Enum
from typing import Final

from pyrepl3_schemas.errors import LocalProtocolError


class SessionState(Enum):
    """The state of a session."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    CLOSING = "closing"
    CLOSED = "closed"


class ExecutionState(Enum):
    """The state of an execution."""

    # Enum's own hash is Python code, which every move would run twice; a member is one object.
    __hash__ = object.__hash__

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"


SESSION_MOVES: Final[dict[SessionState, frozenset[SessionState]]] = {
    SessionState.STARTING: frozenset(
        {SessionState.READY, SessionState.DEAD, SessionState.CLOSING, SessionState.CLOSED}
    ),
    SessionState.READY: frozenset({SessionState.DEAD, SessionState.CLOSING, SessionState.STARTING}),
    # A dead session starts again with a new worker.
    SessionState.DEAD: frozenset({SessionState.STARTING, SessionState.CLOSING, SessionState.CLOSED}),
    SessionState.CLOSING: frozenset({SessionState.CLOSED}),
    SessionState.CLOSED: frozenset(),
}

EXECUTION_MOVES: Final[dict[ExecutionState, frozenset[ExecutionState]]] = {
    ExecutionState.QUEUED: frozenset(
        {ExecutionState.RUNNING, ExecutionState.CANCELLING, ExecutionState.FINISHED}
    ),
    # A running execution is queued again when its worker has died and another worker is to run it.
    ExecutionState.RUNNING: frozenset(
        {ExecutionState.CANCELLING, ExecutionState.FINISHED, ExecutionState.QUEUED}
    ),
    ExecutionState.CANCELLING: frozenset({ExecutionState.FINISHED}),
    ExecutionState.FINISHED: frozenset(),
}


def move_session(old: SessionState, new: SessionState) -> SessionState:
    """Return `new` if it may follow `old`.

    Args:
        old: the present state.
        new: the next state.

    Raises:
        LocalProtocolError: `new` may not follow `old`.
    """
    if new not in SESSION_MOVES[old]:
        raise LocalProtocolError(f"a session cannot go from {old.value} to {new.value}")
    return new


def move_execution(old: ExecutionState, new: ExecutionState) -> ExecutionState:
    """Return `new` if it may follow `old`.

    Args:
        old: the present state.
        new: the next state.

    Raises:
        LocalProtocolError: `new` may not follow `old`.
    """
    if new not in EXECUTION_MOVES[old]:
        raise LocalProtocolError(f"an execution cannot go from {old.value} to {new.value}")
    return new
