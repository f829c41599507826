"""What is kept of a process's stderr."""

import os
from collections.abc import Iterator

import pytest

from pyrepl3_client._launch.stderr_tail import StderrTail
from pyrepl3_client._launch.worker import PIPE_BYTES, open_pipe, set_pipe_size


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = open_pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_the_last_lines_are_kept_however_much_waits_in_the_pipe(pipe: tuple[int, int]) -> None:
    """A warm module that complains at length, and then crashes: the end of it says why."""
    reader, writer = pipe
    if not set_pipe_size(writer, PIPE_BYTES):
        pytest.skip("this user may not have large pipes")
    os.write(writer, b"noise\n" * 50_000 + b"\nthe reason")
    tail = StderrTail(reader)
    tail.read_rest()
    assert tail.text.endswith("noise\n\nthe reason")
    assert tail.text.count("\n") < 100


def test_an_empty_pipe_may_have_more_later_and_a_closed_one_not() -> None:
    reader, writer = open_pipe()
    os.set_blocking(reader, False)
    tail = StderrTail(reader)
    assert tail.read()
    os.write(writer, b"  indented\n")
    assert tail.read()
    os.close(writer)
    assert not tail.read()
    assert tail.text == "  indented"
    os.close(reader)
