"""The bridge between durable functions and the session, and the names that it goes by."""

import asyncio
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_client import BridgeMetrics
from pyrepl3_client.durable.resonate.bridge import ProtocolBridge
from pyrepl3_client.durable.resonate.ids import (
    awaited_id,
    call_key,
    call_place,
    code_digest,
    execution_key,
    root_id,
    session_group,
    session_prefix,
)
from pyrepl3_client.errors import BridgeTimeout, StoreError

pytestmark = pytest.mark.anyio

ids = st.text(st.sampled_from("aB.%:\n\x00ü25E"), min_size=1, max_size=4)


class Orphans:
    """Records the functions that come without a waiter."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, execution_id: str, promise_id: str) -> None:
        self.asked.append((execution_id, promise_id))


async def test_a_function_that_comes_again_submits_nothing() -> None:
    orphans, submissions = Orphans(), list[str]()
    bridge = ProtocolBridge(orphans)
    pending = bridge.expect("e", lambda: submissions.append("e"))
    assert not pending.submitted
    for _ in range(3):
        await bridge.submit("e", "p")
    bridge.submit_again("e", "p")
    assert submissions == ["e"]
    assert bridge.metrics == BridgeMetrics(pending=1, high_water=1, submissions=1, replays=3)
    bridge.settle("e", b"done")
    await bridge.submit("e", "p")  # resumed, since its promise has settled
    assert orphans.asked == []
    assert await pending.wait_outcome() == b"done"
    assert submissions == ["e"]
    assert bridge.metrics == BridgeMetrics(pending=0, high_water=1, submissions=1, replays=4)


async def test_a_function_that_nobody_waits_for_is_looked_up() -> None:
    orphans = Orphans()
    bridge = ProtocolBridge(orphans)
    await bridge.submit("old", "p")
    assert orphans.asked == [("old", "p")]


async def test_closing_gives_all_who_wait_the_reason_and_takes_nobody_new() -> None:
    orphans = Orphans()
    bridge = ProtocolBridge(orphans)
    waiting = [bridge.expect(name, lambda: None) for name in ("a", "b")]
    await bridge.submit("a", "p")
    bridge.close(StoreError("the session was closed"))
    bridge.close(StoreError("for another reason"))
    for pending in waiting:
        with pytest.raises(StoreError, match="the session was closed"):
            await pending.wait_outcome()
        await pending.wait_submitted(1.0)  # it will not be: there is nothing to wait for
    with pytest.raises(StoreError, match="the session was closed"):
        bridge.expect("c", lambda: None)
    await bridge.submit("b", "p")
    assert orphans.asked == []
    assert bridge.metrics.pending == 0


async def test_cancelling_all_leaves_the_bridge_open() -> None:
    bridge = ProtocolBridge(Orphans())
    pending = bridge.expect("a", lambda: None)
    bridge.fail_all(StoreError("the session was taken over"))
    with pytest.raises(StoreError, match="taken over"):
        await pending.wait_outcome()
    bridge.settle("a", b"late")  # nobody waits, and nothing happens
    bridge.expect("a", lambda: None)
    assert bridge.metrics.pending == 1


async def test_an_execution_that_was_given_up_is_not_submitted() -> None:
    submissions = list[str]()
    bridge = ProtocolBridge(Orphans())
    bridge.forget(bridge.expect("a", lambda: submissions.append("a")))
    await bridge.submit("a", "p")
    assert submissions == []


async def test_a_rejection_for_time_says_what_and_where() -> None:
    bridge = ProtocolBridge(Orphans())
    pending = bridge.expect("e", lambda: None)
    with pytest.raises(BridgeTimeout, match="execute of execution 'e' was not answered") as late:
        await pending.wait_submitted(0.001)
    error = late.value
    assert (error.capability, error.execution_id, error.request_id, error.timeout) == (
        "execute",
        "e",
        "exec:e",
        0.001,
    )
    assert error.__notes__ == ["(capability=execute, execution_id=e, request_id=exec:e, timeout=0.001)"]
    assert isinstance(error, TimeoutError)
    assert isinstance(error, StoreError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_several_wait_and_one_that_gives_up_takes_nothing_from_the_others() -> None:
    bridge = ProtocolBridge(Orphans())
    pending = bridge.expect("e", lambda: None)
    first, second = (asyncio.create_task(pending.wait_outcome()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    bridge.settle("e", b"done")
    assert await second == b"done"


# --- names ---


@given(st.tuples(ids, ids), st.tuples(ids, ids))
def test_two_executions_never_share_a_root(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (root_id(*one) == root_id(*other)) == (one == other)
    assert root_id(*one).startswith(session_prefix(other[0])) == (one[0] == other[0])
    assert not set(root_id(*one)) & set(":\0\n")


def test_ordinary_ids_stay_readable() -> None:
    assert root_id("analysis-7", "step_3") == "analysis-7.step_3"
    assert awaited_id("analysis-7.step_3") == "analysis-7.step_3:1"
    assert root_id("a.b", "50%") == "a%2Eb.50%25"


def test_the_keys_are_the_specifications() -> None:
    assert execution_key("e") == "exec:e"
    assert call_key("e", "input", "2") == "e:input:2"
    assert call_key("e", "search", "2.1") == "e:search:2.1"
    assert call_place("a:b:search:2.1") == "2.1"


def test_groups_tell_sessions_apart_where_case_does_not() -> None:
    groups = {session_group("a"), session_group("A")}
    assert len(groups) == 2
    assert groups == {group.lower() for group in groups}


def test_the_digest_is_of_the_codes_text() -> None:
    assert code_digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert code_digest("x = 1") != code_digest("x = 1 ")
