"""The states of sessions and executions: every pair of them is a move, or is refused."""

from collections.abc import Callable
from enum import Enum
from itertools import product
from typing import Any

import pytest

from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.lifecycle import (
    EXECUTION_MOVES,
    SESSION_MOVES,
    ExecutionState,
    SessionState,
    move_execution,
    move_session,
)

# Written down a second time, so that a change of the table is a change of two places.
LEGAL = {
    "starting ready",
    "starting dead",
    "starting closing",
    "starting closed",
    "ready starting",
    "ready dead",
    "ready closing",
    "dead starting",
    "dead closing",
    "dead closed",
    "closing closed",
    "queued running",
    "queued cancelling",
    "queued finished",
    "running queued",
    "running cancelling",
    "running finished",
    "cancelling finished",
}
PAIRS = [
    *((move_session, old, new) for old, new in product(SessionState, repeat=2)),
    *((move_execution, old, new) for old, new in product(ExecutionState, repeat=2)),
]


@pytest.mark.parametrize(("move", "old", "new"), PAIRS, ids=lambda part: getattr(part, "value", ""))
def test_every_pair_of_states_is_a_move_or_is_refused(
    move: Callable[..., Enum], old: Enum, new: Enum
) -> None:
    if f"{old.value} {new.value}" in LEGAL:
        assert move(old, new) is new
    else:
        with pytest.raises(LocalProtocolError, match=f"cannot go from {old.value} to {new.value}"):
            move(old, new)


@pytest.mark.parametrize(
    ("table", "states"),
    [(SESSION_MOVES, SessionState), (EXECUTION_MOVES, ExecutionState)],
    ids=["session", "execution"],
)
def test_every_state_can_reach_the_end_and_the_end_leads_nowhere(
    table: dict[Any, frozenset[Any]], states: type[Enum]
) -> None:
    ends = {state for state, moves in table.items() if not moves}
    assert len(ends) == 1
    reaching = set(ends)
    while more := {state for state, moves in table.items() if moves & reaching} - reaching:
        reaching |= more
    assert reaching == set(table) == set(states)
