"""The collector of what the code writes."""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pyrepl3_schemas.messages import Output
from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.output.collector import OutputCollector


class SlowWriter:
    """Takes its time over a message, as for a pipe that is full."""

    max_frame_bytes = 64 * 1024

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.sent: list[str] = []

    def send(self, message: Output) -> None:
        self.begun.set()
        assert self.go_on.wait(10)
        self.sent.append(message.data)


class NoTimers:
    """Starts no timer: the test calls what a timer would."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.finalizers: list[Callable[[], None]] = []

    def call_later(self, delay: float, action: Any) -> None:
        if self.finalizers:
            self.finalizers.pop()()


@contextmanager
def collector_on(writer: SlowWriter, max_output_bytes: int | None = None) -> Generator[OutputCollector]:
    ends = os.pipe()
    with closing(open(ends[0], "rb")), closing(open(ends[1], "wb")):
        stdio: Any = SimpleNamespace(drained=None, captured=(ends[0], ends[0]))
        clock: Any = NoTimers()
        slow: Any = writer
        yield OutputCollector(slow, stdio, clock, max_output_bytes)


@pytest.mark.parametrize("how", ["finish", "flush"])
def test_what_another_thread_is_about_to_send_comes_before_what_follows(how: str) -> None:
    """Seen as a line that was printed just before the end of a cell and was not in its result."""
    writer = SlowWriter()
    with collector_on(writer) as collector:
        execution = WorkerExecution("e", "")
        collector.running = execution
        collector.write("stdout", "no newline")

        def follow() -> None:
            if how == "finish":
                collector.finish_execution(execution)
            else:
                collector.flush()
            writer.sent.append("what follows")

        timer, following = threading.Thread(target=collector.flush), threading.Thread(target=follow)
        timer.start()
        assert writer.begun.wait(10)
        following.start()
        following.join(0.05)
        writer.go_on.set()
        timer.join(10)
        following.join(10)
    assert writer.sent == ["no newline", "what follows"]


def test_a_finalizer_that_prints_in_the_middle_of_a_send_does_not_wait() -> None:
    """The timer's thread has the collector and wants the writer; this one has the writer and prints."""
    writer = SlowWriter()
    with collector_on(writer) as collector:
        collector.running = WorkerExecution("e", "")
        collector.write("stdout", "no newline")
        timer = threading.Thread(target=collector.flush)
        timer.start()
        assert writer.begun.wait(10)
        with writer.lock:
            collector.write("stderr", "from a finalizer")
            collector.flush()
        writer.go_on.set()
        timer.join(10)
        collector.flush()
    assert writer.sent == ["no newline", "from a finalizer"]


def test_a_finalizer_that_prints_in_the_middle_of_a_write_takes_nothing_apart() -> None:
    """Seen as a text that came with the next cell: the other stream had its turn in between."""
    writer = SlowWriter()
    writer.go_on.set()
    with collector_on(writer) as collector:
        execution = WorkerExecution("e", "")
        collector.running = execution
        clock: Any = collector._timers  # pyright: ignore[reportPrivateUsage] - stands where a collection may strike
        clock.finalizers.append(lambda: collector.write("stderr", "from a finalizer"))
        collector.write("stdout", "on")
        collector.finish_execution(execution)
    assert not clock.finalizers
    assert writer.sent == ["on", "from a finalizer"]


def test_a_limit_of_one_byte_is_kept_and_told() -> None:
    """Seen as a crash of the worker: there was no tail whose stream the marker could have."""
    writer = SlowWriter()
    writer.go_on.set()
    with collector_on(writer, max_output_bytes=1) as collector:
        execution = WorkerExecution("e", "")
        collector.running = execution
        collector.write("stdout", "abc")
        collector.finish_execution(execution)
    assert writer.sent == ["a", "\n… 2 bytes of output cut (max_output_bytes=1) …\n"]
    assert execution.output_was_cut


def test_late_output_over_the_limit_is_cut_behind_what_still_fits() -> None:
    writer = SlowWriter()
    writer.go_on.set()
    with collector_on(writer, max_output_bytes=20) as collector:
        execution = WorkerExecution("e", "")
        collector.running = execution
        collector.write("stdout", "12345")
        collector.finish_execution(execution)
        execution.where = "ended"
        for text in ("late 12345", "more"):
            collector.write("stdout", text)
            collector.flush()
    assert writer.sent == ["12345", "late \n… more late output cut (max_output_bytes=20) …\n"]
