"""When the worker polls for the next message, and how long: on a clock that moves when it is read."""

import os
from collections.abc import Iterator

import pytest

from pyrepl3_worker.wire import busy_poll
from pyrepl3_worker.wire.busy_poll import BusyPoll

STEP = 1e-6


class Clock:
    """Each look at it takes a microsecond."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        self.now += STEP
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(busy_poll, "perf_counter", clock)
    return clock


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def waited(poll: BusyPoll, clock: Clock) -> float:
    before = clock.now
    poll.poll()
    return clock.now - before


def test_the_first_message_is_not_waited_for(clock: Clock, pipe: tuple[int, int]) -> None:
    poll = BusyPoll(pipe[0])
    poll.message_arrived()
    assert waited(poll, clock) < 2 * STEP


def test_after_a_quick_one_the_next_is_for_a_moment(clock: Clock, pipe: tuple[int, int]) -> None:
    poll = BusyPoll(pipe[0])
    poll.poll()
    clock.now += 150e-6
    poll.message_arrived()
    assert waited(poll, clock) == pytest.approx(100e-6, rel=0.1)


def test_what_has_come_already_ends_the_wait(clock: Clock, pipe: tuple[int, int]) -> None:
    poll = BusyPoll(pipe[0])
    poll.poll()
    poll.message_arrived()
    os.write(pipe[1], b"x")
    assert waited(poll, clock) < 3 * STEP


@pytest.mark.parametrize(("pause", "again"), [(0.0, True), (150e-6, False), (1.0, False)])
def test_a_wait_in_vain_is_not_repeated(
    clock: Clock, pipe: tuple[int, int], pause: float, again: bool
) -> None:
    poll = BusyPoll(pipe[0])
    poll.poll()
    poll.message_arrived()
    began = clock.now
    poll.poll()
    clock.now = max(clock.now, began + pause) if pause else began + 50e-6
    poll.message_arrived()
    assert (waited(poll, clock) > 50e-6) is again


def test_a_parent_that_is_gone_ends_the_wait(clock: Clock) -> None:
    reader, writer = os.pipe()
    poll = BusyPoll(reader)
    poll.poll()
    poll.message_arrived()
    os.close(writer)
    assert waited(poll, clock) < 3 * STEP
    os.close(reader)
