"""The record in this process's memory: what it forgets, so that a long session does not grow."""

import pytest

from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._journal.protocol import SavedCheckpoint, Spec
from pyrepl3_schemas.messages import Unsaved

pytestmark = pytest.mark.anyio
LOST = (Unsaved(name="lost", type_name="generator", reason="it cannot be saved"),)


def run(record: MemoryJournal, execution_id: str, code: str, *, named: bool = False) -> int:
    seq = record.begin(execution_id, Spec(code), named=named)
    record.end(execution_id, b"outcome", rejected=False)
    return seq


async def kept(record: MemoryJournal) -> list[str]:
    return [entry.execution_id for entry in await record.entries(2**62)]


async def test_of_the_makers_of_a_lost_name_the_newest_is_kept() -> None:
    record = MemoryJournal()
    for number in range(5):
        run(record, f"make-{number}", "lost = iter([1])")
        run(record, f"use-{number}", "next(lost)")
    seq = run(record, "print", "print(lost)")
    await record.save(SavedCheckpoint("c", seq, b"data", (), LOST), {})
    assert await kept(record) == ["make-4"]
    seq = run(record, "other", "x = 1")
    await record.save(SavedCheckpoint("c", seq, b"data", (), LOST), {})
    assert await kept(record) == ["make-4"]
    await record.save(SavedCheckpoint("c", seq, b"data", ()), {})
    assert await kept(record) == []


async def test_what_has_not_ended_or_came_later_is_kept() -> None:
    record = MemoryJournal()
    record.begin("under-way", Spec("1"), named=False)
    seq = run(record, "covered", "2")
    run(record, "later", "3")
    await record.save(SavedCheckpoint("c", seq, b"data", ()), {})
    assert await kept(record) == ["under-way", "later"]


@pytest.mark.parametrize("policy", ["keep_all", "keep_none"])
async def test_a_named_execution_is_found_again_whatever_is_kept(policy: str) -> None:
    record = MemoryJournal(**{policy: True})
    run(record, "made-up", "1")
    seq = run(record, "step", "2", named=True)
    await record.save(SavedCheckpoint("c", seq, b"data", ()), {})
    assert record.find("step", "2") == b"outcome"
    assert await kept(record) == (["made-up", "step"] if policy == "keep_all" else [])


async def test_a_session_that_is_not_to_come_back_keeps_nothing() -> None:
    record = MemoryJournal(keep_none=True)
    run(record, "made-up", "1")
    assert await kept(record) == []
