"""When an automatic checkpoint begins: one at a time, and not while they are waived."""

import asyncio

import pytest

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._session.checkpoints import CheckpointScheduler

# pyright: reportPrivateUsage=false

pytestmark = pytest.mark.anyio


class Counting(CheckpointScheduler):
    begun = 0

    def _begin(self) -> None:
        self.begun += 1


@pytest.mark.parametrize(("under_way", "waived", "begun"), [(True, 0, 0), (False, 1, 0), (False, 0, 1)])
async def test_a_timer_that_was_set_earlier_begins_no_second_and_no_waived_one(
    under_way: bool, waived: int, begun: int
) -> None:
    saver = Counting(
        TaskOwner("session"),
        MemoryJournal(),
        lambda: None,
        lambda: (1, False),
        on_trouble=print,
        automatic=True,
        eager=False,
        max_bytes=1000,
    )
    saver._cells = 1
    saver._waived = waived
    task = asyncio.create_task(asyncio.sleep(0))
    saver._task = task if under_way else None
    saver._on_timer()
    assert saver.begun == begun
    await task
