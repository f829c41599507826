"""When an automatic checkpoint begins: one at a time, and not while cells are skipped."""

import asyncio

import pytest

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._journal.memory import MemoryJournal
from pyrepl3_client._session.checkpoints import CheckpointScheduler
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client.testing import ScriptedWorker
from tests.helpers.scripted_sessions import opened

# pyright: reportPrivateUsage=false

pytestmark = pytest.mark.anyio


class Counting(CheckpointScheduler):
    begun = 0

    def _start_save(self) -> None:
        self.begun += 1


@pytest.mark.parametrize(("under_way", "skipping", "begun"), [(True, 0, 0), (False, 1, 0), (False, 0, 1)])
async def test_a_timer_that_was_set_earlier_begins_no_second_and_no_skipped_one(
    worker: ScriptedWorker, under_way: bool, skipping: int, begun: int
) -> None:
    async with opened(worker) as session:
        scheduler = Counting(
            TaskOwner("session"),
            MemoryJournal(),
            session._queue,
            lambda: None,
            on_trouble=print,
            telemetry=Telemetry("session"),
            automatic=True,
            eager=False,
            max_bytes=1000,
            unusable_error=AssertionError,
        )
        scheduler._cells = 1
        scheduler._cells_to_skip = skipping
        task = asyncio.create_task(asyncio.sleep(0))
        scheduler._task = task if under_way else None
        scheduler._on_timer()
        assert scheduler.begun == begun
        await task
