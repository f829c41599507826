"""The clock of a deadline, on a clock and a CPU counter that the test moves."""

from pyrepl3_client._execution.time_limit import TimeLimit


class Machine:
    """A clock, and what a worker has used of a core."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu: float | None = 7.0

    def run(self, seconds: float, share: float = 0.0) -> None:
        self.now += seconds
        if self.cpu is not None:
            self.cpu += seconds * share


def begun(seconds: float, *, paused: bool = False) -> tuple[Machine, TimeLimit]:
    machine = Machine()
    limit = TimeLimit(seconds, lambda: machine.now, lambda: machine.cpu)
    limit.begin(paused=paused)
    return machine, limit


def test_time_passes() -> None:
    machine, limit = begun(10)
    machine.run(4)
    assert limit.remaining() == 6
    machine.run(7)
    assert limit.remaining() == 0


def test_a_wait_that_computes_nothing_does_not_count() -> None:
    machine, limit = begun(10)
    machine.run(4)
    limit.note(paused=True)
    machine.run(1000, share=0.04)
    assert limit.remaining() == 6
    machine.run(1000)
    limit.note(paused=False)
    machine.run(5)
    assert limit.remaining() == 1


def test_a_wait_that_computes_counts_whole() -> None:
    machine, limit = begun(10)
    limit.note(paused=True)
    machine.run(4, share=0.5)
    limit.note(paused=False)
    assert limit.remaining() == 6


def test_short_waits_are_looked_at_together() -> None:
    """A thread of the code computes all the time, beside a cell that asks on and on."""
    machine, limit = begun(10)
    ticks = 0.0
    for step in range(4000):
        limit.note(paused=True)
        machine.run(0.005)
        if step % 2:  # as the kernel counts it, in steps
            assert machine.cpu is not None
            machine.cpu += 0.01
            ticks += 0.01
        limit.note(paused=False)
    assert ticks > 10
    assert limit.remaining() == 0


def test_short_waits_that_compute_nothing_do_not_count() -> None:
    machine, limit = begun(10)
    for _ in range(4000):
        limit.note(paused=True)
        machine.run(0.005)
        limit.note(paused=False)
    assert limit.remaining() > 9.9


def test_what_computes_after_a_long_rest_is_seen_at_the_next_look() -> None:
    machine, limit = begun(10, paused=True)
    machine.run(1000)
    assert limit.remaining() == 10
    machine.run(10, share=1.0)
    assert limit.remaining() == 0


def test_a_second_question_does_not_begin_the_wait_again() -> None:
    machine, limit = begun(10, paused=True)
    machine.run(5)
    limit.note(paused=True)
    machine.run(5)
    limit.note(paused=False)
    assert limit.remaining() == 10


def test_what_is_not_known_counts() -> None:
    machine, limit = begun(10, paused=True)
    machine.cpu = None
    machine.run(4)
    assert limit.remaining() == 6


def test_little_time_is_not_looked_at_all_the_time_while_it_stands_still() -> None:
    machine, limit = begun(10)
    machine.run(9.99)
    limit.note(paused=True)
    assert limit.remaining() == 0.5


def test_before_its_beginning_nothing_is_noted() -> None:
    machine = Machine()
    limit = TimeLimit(10, lambda: machine.now, lambda: machine.cpu)
    limit.note(paused=True)
    assert not limit.began
