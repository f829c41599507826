"""Reading stops above the high-water mark, and goes on at the low one."""

import asyncio

import pytest

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.backpressure import HIGH_BYTES, OrderedDelivery, WaterMark

pytestmark = pytest.mark.anyio


class Reader:
    """Notes who has stopped it."""

    def __init__(self) -> None:
        self.stopped_by: list[object] = []

    def pause_reading(self, who: object) -> None:
        self.stopped_by.append(who)

    def resume_reading(self, who: object) -> None:
        self.stopped_by.remove(who)


def test_reading_stops_above_high_and_goes_on_at_low() -> None:
    reader = Reader()
    mark = WaterMark(10, 5, lambda: reader)
    levels = [0, 10, 11, 12, 10, 6, 5, 6, 10, 11, 5]
    stopped: list[bool] = []
    before = 0
    for level in levels:
        (mark.rise if level > before else mark.fall)(level)
        before = level
        stopped.append(reader.stopped_by == [mark])
    assert stopped == [False, False, True, True, True, True, False, False, False, True, False]


def test_reading_can_go_on_before_the_level_is_low() -> None:
    reader = Reader()
    mark = WaterMark(10, 5, lambda: reader)
    mark.rise(11)
    mark.resume()
    mark.resume()
    assert reader.stopped_by == []
    mark.rise(11)
    assert reader.stopped_by == [mark]


def test_the_next_worker_is_stopped_too_and_the_one_that_was_stopped_last_goes_on() -> None:
    first, second = Reader(), Reader()
    readers = [first]
    mark = WaterMark(10, 5, lambda: readers[-1])
    mark.rise(11)
    readers.append(second)
    mark.rise(9)
    assert second.stopped_by == []
    mark.rise(11)
    assert second.stopped_by == [mark]
    mark.fall(5)
    assert second.stopped_by == []


def test_a_level_that_falls_stops_no_other_worker() -> None:
    first, second = Reader(), Reader()
    readers = [first]
    mark = WaterMark(10, 5, lambda: readers[-1])
    mark.rise(20)
    readers.append(second)
    mark.fall(15)
    assert second.stopped_by == []
    mark.fall(5)
    assert first.stopped_by == []


async def test_steps_that_wait_since_another_worker_was_there_stop_no_reading() -> None:
    first, second = Reader(), Reader()
    readers = [first]
    delivery = OrderedDelivery(TaskOwner("s"), lambda: readers[-1])
    turns = asyncio.Semaphore(0)

    async def turn() -> None:
        await turns.acquire()

    delivery.wait_for(turn())
    for _ in range(4):
        delivery.add(turn, HIGH_BYTES)
    assert first.stopped_by
    readers.append(second)
    delivery.add(turn)
    for _ in range(2):
        turns.release()
        await asyncio.sleep(0.01)
    assert first.stopped_by
    assert second.stopped_by == []
    delivery.add(turn, 1)
    assert second.stopped_by, "what the second worker sends waits too, so it has to"
    await delivery.close(0)
