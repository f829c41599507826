"""The store and the SDK's own in-process server, given the same requests, must do the same."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.helpers.sqlite_model import ADDRESSES, SameAsServerState
from tests.helpers.sqlite_store import action, suspend

# More steps than usual, since it takes some to build up; and half as many examples as the loaded profile has.
SameAsServerState.TestCase.settings = settings(
    max_examples=settings().max_examples // 2, stateful_step_count=60
)
# A time-out in the middle of an example is told as "FlakyStrategyDefinition": a busy machine takes a minute.
TestSameAsServerState = pytest.mark.timeout(300)(SameAsServerState.TestCase)


# --- the corners that must be seen at every run -------------------------------------------------------


@pytest.fixture
def side_by_side() -> Iterator[SameAsServerState]:
    machine = SameAsServerState()
    yield machine
    machine.teardown()


def compare(machine: SameAsServerState) -> None:
    machine.same_promises()
    machine.same_tasks()
    machine.same_deadlines()
    machine.same_registrations()


TARGET = {"resonate:target": ADDRESSES[0]}


def start(machine: SameAsServerState, task_id: str, span: int) -> None:
    body = machine.promise(task_id, span, TARGET, None)
    machine.both("task.create", {"pid": "p1", "ttl": 60_000, "action": action("promise.create", body)})


def test_a_task_that_times_out_with_what_it_awaits_is_not_woken(side_by_side: SameAsServerState) -> None:
    start(side_by_side, "a", 100)
    side_by_side.promise_create("a:1", 90, TARGET, None)
    side_by_side.both("task.suspend", suspend("a", ["a:1"], 0))
    side_by_side.now += 100
    side_by_side.tick()
    compare(side_by_side)
    assert side_by_side.model.tasks["a"].version == 0


def test_a_task_that_awaits_a_promise_timing_out_is_woken(side_by_side: SameAsServerState) -> None:
    start(side_by_side, "a", 100)
    side_by_side.promise_create("a:1", 90, {**TARGET, "resonate:timer": "true"}, None)
    side_by_side.register_listener("a:1", ADDRESSES[1])
    side_by_side.both("task.suspend", suspend("a", ["a:1"], 0))
    side_by_side.now += 90
    side_by_side.tick()
    compare(side_by_side)
    assert side_by_side.model.tasks["a"].state == "pending"


def test_a_redirected_task_hears_of_the_other_promises_too(side_by_side: SameAsServerState) -> None:
    start(side_by_side, "a", 1_000)
    side_by_side.promise_create("a:1", 1_000, {}, None)
    side_by_side.promise_create("a:2", 1_000, {}, None)
    side_by_side.promise_settle("a:1", "resolved", None)
    for _ in range(2):  # a:1 has settled; then so has a:2, meanwhile
        assert side_by_side.both("task.suspend", suspend("a", ["a:1", "a:2"], 0))["head"]["status"] == 300
        compare(side_by_side)
        side_by_side.promise_settle("a:2", "resolved", None)
    assert side_by_side.both("task.suspend", suspend("a", [], 0))["head"]["status"] == 200


def test_each_settlement_wakes_a_task_once(side_by_side: SameAsServerState) -> None:
    start(side_by_side, "a", 1_000)
    side_by_side.promise_create("a:1", 1_000, {}, None)
    side_by_side.promise_create("a:2", 1_000, {}, None)
    side_by_side.both("task.suspend", suspend("a", ["a:1", "a:2"], 0))
    side_by_side.promise_settle("a:1", "resolved", None)
    side_by_side.promise_settle("a:2", "rejected", None)
    compare(side_by_side)
    side_by_side.both("task.acquire", {"id": "a", "version": 1, "pid": "p2", "ttl": 10})
    side_by_side.both("task.suspend", suspend("a", ["a:2"], 1))
    compare(side_by_side)


def test_a_lapsed_lease_is_offered_again_and_again(side_by_side: SameAsServerState) -> None:
    start(side_by_side, "a", 10**9)
    start(side_by_side, "b", 10**9)
    for _ in range(3):
        side_by_side.now += 60_000
        side_by_side.tick()
        compare(side_by_side)
    side_by_side.both("task.fence", {"id": "a", "version": 0, "action": action("promise.get", {"id": "b"})})
    side_by_side.both("task.acquire", {"id": "a", "version": 1, "pid": "p2", "ttl": 10})
    side_by_side.both(
        "task.fulfill", {"id": "a", "version": 1, "action": action("promise.settle", {"id": "a"})}
    )
    compare(side_by_side)
