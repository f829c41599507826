"""A real worker, spoken to by nothing but the contract: what PROTOCOL.md promises to any client."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from pyrepl3_schemas.codec import ClientDecoder, encode
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.messages import Error, Execute, FromWorker, Hello, Ping, Pong, Ready, Result, Shutdown
from tests.helpers.frames import framed

HELLO = encode(Hello(PROTOCOL, "by-hand"))


class Worker:
    """A worker's process and its two pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._decoder = ClientDecoder()
        self._waiting: list[FromWorker] = []

    def write(self, data: bytes) -> None:
        """Write all of it at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read(self) -> FromWorker | None:
        """Wait for the next message; None at the end of the stream."""
        assert self._process.stdout is not None
        while not self._waiting:
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                self._decoder.close()
                return None
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)

    def status(self) -> int:
        """Wait for its end."""
        return self._process.wait(10)


@contextmanager
def worker() -> Generator[Worker]:
    """Start one; leave it by the end of its stream."""
    command = [sys.executable, "-P", "-m", "pyrepl3_worker"]
    pipe = subprocess.PIPE
    # Leaving it closes the pipes and waits.
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        yield Worker(process)


pytestmark = pytest.mark.timeout(20)


def test_what_is_sent_together_with_hello_is_answered() -> None:
    with worker() as by_hand:
        by_hand.write(HELLO + encode(Execute("e-1", "6 * 7")) + encode(Ping(5)))
        assert isinstance(by_hand.read(), Ready)
        answers = [by_hand.read(), by_hand.read()]
        assert [answer.repr for answer in answers if isinstance(answer, Result)] == ["42"]
        assert [answer.nonce for answer in answers if isinstance(answer, Pong)] == [5]


def test_a_frame_may_arrive_a_byte_at_a_time() -> None:
    with worker() as by_hand:
        for byte in HELLO:
            by_hand.write(bytes([byte]))
        assert isinstance(by_hand.read(), Ready)


def test_shutdown_and_the_end_of_the_stream_end_it_with_status_0() -> None:
    with worker() as by_hand:
        by_hand.write(HELLO)
        assert isinstance(by_hand.read(), Ready)
        by_hand.write(encode(Shutdown()))
        assert by_hand.read() is None
        assert by_hand.status() == 0
    with worker() as by_hand:
        pass
    assert by_hand.status() == 0


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (encode(Hello(PROTOCOL + 1, "s")), f"protocol {PROTOCOL + 1} was asked for"),
        (encode(Ping()), "the first message was Ping"),
        (framed(b"\xc1"), "invalid opcode"),
        (b"GET / HTTP/1.1\r\n", "frame length"),
    ],
    ids=["another protocol", "another message", "no message", "another world"],
)
def test_a_greeting_that_it_does_not_take_is_refused_with_status_70(first: bytes, says: str) -> None:
    with worker() as by_hand:
        by_hand.write(first)
        error = by_hand.read()
        assert isinstance(error, Error)
        assert (error.kind, error.execution_id) == ("protocol", None)
        assert says in error.message
        assert by_hand.read() is None
        assert by_hand.status() == 70


def test_nonsense_after_a_good_frame_is_answered_without_another_byte() -> None:
    with worker() as by_hand:
        by_hand.write(HELLO)
        assert isinstance(by_hand.read(), Ready)
        by_hand.write(encode(Ping(1)) + framed(b"\xc1"))
        assert isinstance(by_hand.read(), Pong)
        error = by_hand.read()
        assert isinstance(error, Error)
        assert error.kind == "protocol"
        assert f"at byte {len(HELLO) + len(encode(Ping(1)))}" in error.message
        assert by_hand.read() is None


def test_a_smaller_frame_limit_holds_in_both_directions() -> None:
    limit = 4096
    with worker() as by_hand:
        by_hand.write(encode(Hello(PROTOCOL, "s", config=ExecutorConfig(max_frame_bytes=limit))))
        ready = by_hand.read()
        assert isinstance(ready, Ready)
        assert ready.max_frame_bytes == limit
        by_hand.write(encode(Execute("e-1", "print('x' * 10 * 4096); 'y' * 10 * 4096")))
        while not isinstance(message := by_hand.read(), Result):
            assert message is not None
            assert len(encode(message)) - 4 <= limit
        assert message.truncated
        assert len(encode(message)) - 4 <= limit
        by_hand.write(encode(Execute("e-2", "z" * limit)))
        error = by_hand.read()
        assert isinstance(error, Error)
        assert "frame length" in error.message
