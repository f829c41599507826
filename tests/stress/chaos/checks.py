"""What must hold after a fault run: by the independent log, by the store's file, and by what is left.

A line of the log is `LIFE WHAT …`: `call ID ATTEMPT` and `ask ID OPENING` when the outside was asked,
`outcome ID REPLAYED DIGEST` when a program was told an outcome, `refused ID` when it was told that there is
none yet. A line of a thread may come after the next opening has begun.
"""

import os
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

_GRACE: Final = 5.0
"""Seconds for processes that have been told to end, to be gone."""
_LOOKS: Final = 0.01
LAST_IN_ITS_FLOW: Final = "confirm"
"""Whatever the same flow of a cell asked before this call was on record by then."""


class Line(NamedTuple):
    """One line of the log."""

    life: int
    what: str
    key: str
    rest: tuple[str, ...]


class Outcomes(NamedTuple):
    """What a session's programs were told of its executions: digests by ids."""

    digests: dict[str, str]
    repeats: int
    """Calls that were made again since their outcome was not on record."""
    asked_again: int
    """Prompts, likewise."""
    reopened: int
    """How often a session was dead and opened again."""


def read_log(path: Path) -> list[Line]:
    """Read a log. A line that was cut off would be a defect of the log's own."""
    lines = (line.split() for line in path.read_text().splitlines())
    return [Line(int(life), what, key, tuple(rest)) for life, what, key, *rest in lines]


def check_log(path: Path) -> Outcomes:
    """Check one session's log.

    Raises:
        AssertionError: a promise was broken; the text says which.
    """
    log = read_log(path)
    digests = _resolved_once(log)
    _silent_when_resolved(log)
    repeats = _calls(log)
    asked_again = _prompts(log)
    _only_what_was_not_on_record(log)
    return Outcomes(digests, repeats, asked_again, sum(line.what == "reopened" for line in log))


def _resolved_once(log: list[Line]) -> dict[str, str]:
    told: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for line in log:
        if line.what == "outcome":
            told[line.key].append(line.rest)
    for execution_id, answers in told.items():
        digests = {digest for _, digest in answers}
        assert len(digests) == 1, f"{execution_id} has {len(digests)} outcomes: {answers}"
        run = [replayed for replayed, _ in answers].count("False")
        assert run <= 1, f"{execution_id} was run to its end {run} times"
        assert all(replayed == "True" for replayed, _ in answers[1:]), f"{execution_id}: {answers}"
    return {execution_id: answers[0][1] for execution_id, answers in told.items()}


def _silent_when_resolved(log: list[Line]) -> None:
    """An execution whose outcome somebody was told asks the outside for nothing more."""
    resolved: set[str] = set()
    for line in log:
        if line.what == "outcome":
            resolved.add(line.key)
        elif line.what in ("call", "ask"):
            assert execution_of(line.key) not in resolved, f"asked after the end of its execution: {line}"


def _calls(log: list[Line]) -> int:
    """Each attempt is made once, they count up, and there is a reason for each but the first."""
    attempts: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    refused: Counter[str] = Counter()
    for line in log:
        if line.what == "refused":
            refused[line.key] += 1
        elif line.what == "call":
            seen = attempts[line.key]
            # In one life, only a refusal can have kept a call's outcome from the record.
            seen.append((int(line.rest[0]), line.life, refused[execution_of(line.key)]))
    for call_id, seen in attempts.items():
        numbers = [number for number, _, _ in seen]
        assert numbers == sorted(set(numbers)), f"{call_id}: attempts {numbers}"
        circumstances = [(life, refusals) for _, life, refusals in seen]
        assert len(set(circumstances)) == len(seen), f"{call_id} was made twice without a reason: {seen}"
        assert len(seen) == 1 or ":charge:" not in call_id, f"{call_id} may be made once: {seen}"
    return sum(len(seen) - 1 for seen in attempts.values())


def _prompts(log: list[Line]) -> int:
    refused: Counter[str] = Counter()
    asked: defaultdict[str, list[tuple[int, tuple[str, ...], int]]] = defaultdict(list)
    for line in log:
        if line.what == "refused":
            refused[line.key] += 1
        elif line.what == "ask":
            asked[line.key].append((line.life, line.rest, refused[execution_of(line.key)]))
    for input_id, circumstances in asked.items():
        assert len(set(circumstances)) == len(circumstances), f"{input_id} was asked twice: {circumstances}"
    return sum(len(circumstances) - 1 for circumstances in asked.values())


def _only_what_was_not_on_record(log: list[Line]) -> None:
    """Once a flow has gone on to its last call, what it asked before had been answered on record."""
    past: set[tuple[str, str]] = set()
    for line in log:
        if line.what not in ("call", "ask"):
            continue
        execution_id, name, place = line.key.split(":")
        flow = execution_id, place.rpartition(".")[0]
        if line.what == "call" and name == LAST_IN_ITS_FLOW:
            past.add(flow)
        else:
            assert flow not in past, f"{line.key} was on record, and was asked again in life {line.life}"


def execution_of(key: str) -> str:
    """Return the execution that a call or a prompt is of."""
    return key.partition(":")[0]


def check_same_namespace(session_id: str, log: Path, undisturbed: Path) -> None:
    """Check that the namespace is what it is without faults, name by name."""
    namespace, expected = (
        msgspec.json.decode(
            path.with_name(f"{path.name}.namespace").read_bytes(), type=dict[str, list[object]]
        )
        for path in (log, undisturbed)
    )
    names = namespace.keys() | expected.keys()
    differ = {name: (namespace.get(name), expected.get(name)) for name in names}
    differ = {name: values for name, values in differ.items() if values[0] != values[1]}
    assert not differ, f"{session_id}: not as in an undisturbed run: {differ}"


def check_same(session_id: str, outcomes: Outcomes, undisturbed: Outcomes) -> None:
    """Check that each outcome is what it is without faults."""
    assert outcomes.digests.keys() == undisturbed.digests.keys(), session_id
    differ = [key for key, digest in outcomes.digests.items() if undisturbed.digests[key] != digest]
    assert not differ, f"{session_id}: other outcomes than in an undisturbed run: {differ}"


def check_calls_made(session_id: str, log: Path, undisturbed: Path) -> int:
    """Check that the outside was asked for all that an undisturbed run asks for, and for nothing else.

    A call that may not be repeated is missing where its program died before it was made, and after its
    intent was recorded: it cannot be known which. Return how many are missing.
    """
    asked, expected = (
        {line.key for line in read_log(path) if line.what in ("call", "ask")} for path in (log, undisturbed)
    )
    missing = expected - asked
    assert asked <= expected, f"{session_id}: {sorted(asked - expected)}"
    assert all(":charge:" in key for key in missing), f"{session_id}: {sorted(missing)}"
    return len(missing)


def check_store(path: Path, sessions: dict[str, set[str]]) -> None:
    """Check what is in the file: one outcome for each execution, no call or promise left open."""
    with closing(sqlite3.connect(path)) as file:

        def rows(sql: str, *values: str) -> list[tuple[str, ...]]:
            return file.execute(sql, values).fetchall()

        assert rows("PRAGMA integrity_check") == [("ok",)]
        for session_id, executions in sessions.items():
            found = rows("SELECT id FROM executions WHERE session = ?", session_id)
            assert sorted(row[0] for row in found) == sorted(executions), session_id
        assert not rows("SELECT session, id FROM executions WHERE status != 'finished' OR outcome IS NULL")
        states = rows("SELECT state, count(*) FROM promises GROUP BY state")
        assert [state for state, _ in states] == ["resolved"], states
        # A call that may not be repeated stays open where its program died in it, and no other does.
        assert not rows("SELECT session, id FROM calls WHERE state != 'done' AND name != 'charge'")
    left = sorted(name for name in os.listdir(path.parent) if name != path.name)
    assert not left, f"beside the store there is still {left}"


# --- what is left -------------------------------------------------------------------------------------


def open_fds() -> set[str]:
    """Return this process's open files: their numbers and what they are."""
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue  # the one that the list was read from
    return found


def processes_with(variable: bytes) -> Iterator[str]:
    """Yield the processes that were started with an environment variable, also orphaned ones."""
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            if variable in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                command = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ")
                yield f"{name} {command.decode(errors='replace')[:200]}"
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue


def check_no_process_left(variable: bytes) -> None:
    """Check that no process of the run is left; they may take a moment to end."""
    until = time.monotonic() + _GRACE
    while left := list(processes_with(variable)):
        # They are children of nobody here: the kernel ends them with their parents, in a moment.
        assert time.monotonic() < until, f"these processes are left: {left}"
        time.sleep(_LOOKS)


def check_no_fd_left(fds: set[str]) -> None:
    """Check that no file is open beside `fds`."""
    more = open_fds() - fds
    assert not more, f"these files are open still: {sorted(more)}"
