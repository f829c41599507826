"""A worker driven by hand: how it ends, what it refuses, and that plain stdio serves it too."""

import subprocess
import sys

import pytest

from pyrepl3_schemas.constants import PROTOCOL, PROTOCOLS
from pyrepl3_schemas.messages import (
    Cancel,
    CapabilitySpec,
    Checkpoint,
    Checkpointed,
    Error,
    Execute,
    Hello,
    Output,
    Progress,
    Ready,
    Result,
    Shutdown,
)
from tests.helpers.raw_worker import RawWorker


def test_shutdown_exits_with_0() -> None:
    with RawWorker() as worker:
        worker.hello()
        worker.send(Shutdown(reason="enough"))
        assert worker.exit_code() == 0


def test_the_end_of_its_input_exits_with_0() -> None:
    with RawWorker() as worker:
        worker.hello()
        worker.close_stdin()
        assert worker.exit_code() == 0


def test_the_end_of_its_input_before_hello_exits_with_0() -> None:
    with RawWorker() as worker:
        worker.close_stdin()
        assert worker.exit_code() == 0


@pytest.mark.parametrize(
    "code", ["import asyncio; await asyncio.sleep(600)", "import time; time.sleep(600)", "input()"]
)
def test_the_end_of_its_input_ends_what_runs(code: str) -> None:
    with RawWorker() as worker:
        worker.hello()
        worker.send(Execute(execution_id="a", code=f"print('ready')\n{code}"))
        assert isinstance(worker.receive(), Output)
        worker.close_stdin()
        assert worker.exit_code() == 0


def test_shutdown_runs_cleanup_and_exit_handlers() -> None:
    with RawWorker() as worker:
        worker.hello()
        worker.run("import atexit; atexit.register(print, 'at exit') and None")
        worker.run(
            "import asyncio\nasync def bg():\n    try: await asyncio.sleep(600)\n    finally: print('cleaned')\n"
            "t = asyncio.create_task(bg())\nawait asyncio.sleep(0)"
        )
        worker.send(Shutdown())
        written = ""
        while "at exit" not in written:
            message = worker.receive()
            if isinstance(message, Output):
                written += message.data
        assert written == "cleaned\nat exit\n"
        assert worker.exit_code() == 0


def test_plain_stdio_captures_everything_too() -> None:
    with RawWorker() as worker:
        worker.hello()
        code = "import os, subprocess\nprint('a')\nos.write(1, b'b\\n')\nsubprocess.run(['echo', 'c'])\nprint('d')"
        outcome, output = worker.run(code)
        assert isinstance(outcome, Result)
        assert output == "a\nb\nc\nd\n"


def test_plain_stdio_cancels_too() -> None:
    with RawWorker() as worker:
        worker.hello()
        worker.send(Execute(execution_id="a", code="print('ready')\nwhile True: pass"))
        assert isinstance(worker.receive(), Output)
        worker.send(Cancel(execution_id="a"))
        worker.send_wakeup_signal()
        answer = worker.receive()
        assert isinstance(answer, Error)
        assert answer.kind == "cancelled"


SLOW = """
import time
from pyrepl3_worker.session import checkpoint_requests
checkpoint_requests._PROGRESS_SECONDS = 0.01
class Slow:
    def __reduce__(self):
        time.sleep(0.3)
        return Slow, ()
s = Slow()
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_of_an_older_protocol_gets_nothing_that_it_does_not_know(protocol: int) -> None:
    with RawWorker() as worker:
        worker.send(Hello(protocol=protocol, session_id="x", report=["data", "changed", "files"]))
        ready = worker.receive()
        assert isinstance(ready, Ready)
        assert ready.protocol == protocol
        result, _ = worker.run("object()")
        assert isinstance(result, Result)
        assert (result.value_note == "", result.changed is None) == (protocol == 1, protocol == 1)
        worker.send(Execute(execution_id="a", code=SLOW))
        assert isinstance(worker.receive(), Result)
        worker.send(Checkpoint(checkpoint_id="c"))
        told: list[str] = []
        while not isinstance(answer := worker.receive(), Checkpointed):
            assert isinstance(answer, Progress)
            assert answer.checkpoint_id == "c"
            told.append(answer.name)
        assert answer.unsaved == []
        assert told[:1] == (["s"] if protocol > 1 else [])


def test_a_foreign_protocol_is_refused() -> None:
    with RawWorker() as worker:
        worker.send(Hello(protocol=PROTOCOL + 1, session_id="x"))
        answer = worker.receive()
        assert isinstance(answer, Error)
        assert answer.kind == "protocol"
        assert worker.exit_code() != 0


def test_a_host_function_named_like_a_builtin_is_refused() -> None:
    with RawWorker() as worker:
        worker.send(Hello(protocol=PROTOCOL, session_id="x", capabilities=[CapabilitySpec("open")]))
        answer = worker.receive()
        assert isinstance(answer, Error)
        assert (answer.kind, answer.message) == (
            "protocol", "capability 'open' needs another name: that is a builtin, which libraries use too",
        )  # fmt: skip
        assert worker.exit_code() != 0


@pytest.mark.parametrize("garbage", [b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x05hello"])
def test_garbage_ends_the_worker_with_a_word(garbage: bytes) -> None:
    with RawWorker() as worker:
        worker.hello()
        worker.write(garbage)
        answer = worker.receive()
        assert isinstance(answer, Error)
        assert (answer.kind, answer.execution_id) == ("protocol", None)
        worker.exit_code()


def test_a_person_who_starts_it_is_told_what_it_is() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pyrepl3_worker", "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: pyrepl3-worker" in shown.stdout
