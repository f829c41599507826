"""Reading stops above the high-water mark, and goes on at the low one."""

from pyrepl3_client._execution.backpressure import WaterMark


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
    for level in levels:
        mark.update(level)
        stopped.append(reader.stopped_by == [mark])
    assert stopped == [False, False, True, True, True, True, False, False, False, True, False]


def test_reading_can_go_on_before_the_level_is_low() -> None:
    reader = Reader()
    mark = WaterMark(10, 5, lambda: reader)
    mark.update(11)
    mark.resume()
    mark.resume()
    assert reader.stopped_by == []
    mark.update(11)
    assert reader.stopped_by == [mark]


def test_the_next_worker_is_stopped_too_and_the_one_that_was_stopped_last_goes_on() -> None:
    first, second = Reader(), Reader()
    readers = [first]
    mark = WaterMark(10, 5, lambda: readers[-1])
    mark.update(11)
    readers.append(second)
    mark.update(9)
    assert second.stopped_by == []
    mark.update(11)
    assert second.stopped_by == [mark]
    mark.update(5)
    assert second.stopped_by == []
