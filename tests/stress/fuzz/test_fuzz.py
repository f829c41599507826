"""The fuzz run in a bounded form, and what it has found.

The long form is `python -m tests.stress.fuzz`, with its million frames.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyrepl3_client as pyrepl3
from pyrepl3_client import testing
from pyrepl3_client.testing import Run, ScriptedWorker
from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, encode
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.messages import (
    Checkpoint,
    Complete,
    Error,
    Execute,
    FromWorker,
    GetStats,
    Input,
    Pong,
    Restore,
    Shutdown,
    ToWorker,
)
from tests.stress.fuzz.__main__ import orders
from tests.stress.fuzz.case_process import Finding, Order, remake
from tests.stress.fuzz.decoder_target import Decoders
from tests.stress.fuzz.messagepack import POISON, Pairs, Verbatim, pack, parse
from tests.stress.fuzz.mutations import Case, framed, golden, mutate_body, rearranged
from tests.stress.fuzz.runner import CaseProcess, replay, run, shrink
from tests.stress.fuzz.worker_target import HELLO, WorkerSessions

SEED = 20260131
ROOT = Path(__file__).parents[3]


def fuzzed(target: str, frames: int) -> CaseProcess:
    """Run one process; print its seed and what it found."""
    (process,) = run(
        [Order(target=target, seed=SEED, process_number=0, frames=frames)], side_by_side=1, progress=False
    )
    print(f"seed {SEED}: {process.frames:,} frames in {process.cases:,} sequences, {dict(process.tally)}")
    assert not process.what, f"{process.what}\npython -m tests.stress.fuzz --replay {process.finding}"
    assert process.frames >= frames
    return process


def test_mutated_frames_get_past_neither_decoder() -> None:
    process = fuzzed("decoder", 25_000)
    assert process.tally["messages decoded"] > 500, "too few of them are right"
    assert sum(count for what, count in process.tally.items() if what.startswith("refused")) > 500
    assert process.tally["streams weighed"] > 5


def test_a_client_survives_a_worker_that_says_what_it_should_not() -> None:
    process = fuzzed("client", 3_000)
    assert process.tally["execution: error of kind died"] > 20
    assert process.tally["execution: value"] > 20
    assert process.tally["last ping: Pong"] > 5


def test_a_worker_survives_a_client_that_says_what_it_should_not() -> None:
    process = fuzzed("worker", 2_000)
    assert process.tally["messages from workers"] > 500
    assert process.tally["workers told why they end"] > 0


# --- the instrument itself ----------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(0, 9))
def test_a_seed_makes_the_same_stream_again(seed: int, number: int) -> None:
    order = Order(target="decoder", seed=seed, process_number=0, frames=1)
    assert remake(order, number) == remake(order, number)
    _, case = remake(order, number)
    assert b"".join(case.chunks()) == case.stream


@given(st.integers(0, 2**32), st.booleans())
def test_any_mutation_of_any_seed_is_decoded_or_refused(seed: int, to_worker: bool) -> None:
    """In this process, so that Hypothesis finds the smallest seed."""
    chance = Random(seed)
    body = mutate_body(chance, golden(to_worker=to_worker))
    Decoders(Counter()).check(to_worker, Case([framed(body), framed(body)], 2**26, seed))


@given(st.integers(0, 2**32), st.integers(0, 3))
def test_however_frames_are_rearranged_something_is_sent(seed: int, count: int) -> None:
    frames = rearranged(Random(seed), [framed(b"\x80")] * count)
    assert frames
    assert all(frames)


@pytest.mark.parametrize("to_worker", [True, False])
def test_an_unchanged_tree_packs_to_what_it_was_parsed_from(to_worker: bool) -> None:
    for tree in golden(to_worker=to_worker).trees:
        assert pack(parse(pack(tree))) == pack(tree)  # as bytes, since a NaN equals nothing


def test_a_tree_can_say_what_an_encoder_never_would() -> None:
    assert pack(Pairs([("a", 1), ("a", Verbatim(b"\xc1"))])) == b"\x82\xa1a\x01\xa1a\xc1"
    refused = 0
    for poison in POISON:
        try:
            parse(pack(poison))
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            refused += 1
    assert 20 < refused < len(POISON) - 20


def test_a_finding_is_replayed_and_made_smaller() -> None:
    """One that is none says so; a process that dies over its case is one."""
    order = Order(target="decoder", seed=1, process_number=0, frames=1)
    to_worker, case = remake(order, 0)
    sound = Finding.of(order, 0, to_worker, case, "a test's").save()
    assert replay(sound) == ""
    broken = Finding(
        target="client",
        to_worker=True,
        frames=["00000001c1", "zz", "00000001c1"],  # no hex: whoever reads it fails, which is what is wanted
        max_frame_bytes=64,
        choice=0,
    ).save()
    assert "ended with 1" in replay(broken)
    path, left = shrink(broken)
    assert left == 1
    assert msgspec.json.decode(Path(path).read_bytes(), type=Finding).frames == ["zz"]
    for file in Path(sound).parent.glob("fuzz-*.json"):
        file.unlink()


def test_the_million_is_shared_out() -> None:
    shared = Counter[str]()
    for order in orders("all", 1, 1_000_000, 2):
        shared[order.target] += order.frames
    assert shared == {"decoder": 800_000, "client": 100_000, "worker": 100_000}


def test_the_command_prints_its_seed_and_what_it_did() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.stress.fuzz",
        "--seed",
        "5",
        "--frames",
        "3000",
        "--target",
        "decoder",
    ]
    done = subprocess.run(
        [*command, "--processes", "2"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 5: 3,000 frames" in done.stdout
    assert "frames in" in done.stdout
    assert "seed 5: nothing went wrong" in done.stdout


# --- what it has found --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e10])
def test_a_timeout_that_no_clock_can_take_is_refused_by_name(timeout: float) -> None:
    """A NaN ended the worker's thread for alarms: no execution after it had a time limit."""
    with pytest.raises(RemoteProtocolError, match=r"\$\.timeout"):
        WorkerDecoder().feed(encode(Execute("e", "1", timeout=timeout)))


@pytest.mark.parametrize(
    "message",
    [Execute("e" * 257, "1"), GetStats("s" * 257), Checkpoint("c" * 257), Complete("", 0, "c" * 257)],
)
def test_an_id_that_no_answer_has_room_for_is_refused(message: ToWorker) -> None:
    """An id nearly as long as a frame ended its worker with a traceback: the answer repeats it."""
    with pytest.raises(RemoteProtocolError, match="length <= 256"):
        WorkerDecoder().feed(encode(message))


def test_the_longest_ids_are_answered_within_the_smallest_frames() -> None:
    longest = "\U0001f600" * 256
    asked = [
        Checkpoint(longest),
        Restore(longest, data=b"\xc1"),
        GetStats(longest),
        Execute(longest, "'x' * 9999"),
    ]
    hello = msgspec.structs.replace(HELLO, config=ExecutorConfig(max_frame_bytes=4096))
    tally = Counter[str]()
    WorkerSessions(tally).check(True, Case([encode(message) for message in (hello, *asked)]))
    assert tally["workers ended with status 0"] == 1
    assert tally["outcome: value"] == 1


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e10])
def test_a_duration_that_is_none_is_refused_in_both_directions(seconds: float) -> None:
    with pytest.raises(RemoteProtocolError, match=r"\$\.grace"):
        WorkerDecoder().feed(encode(Shutdown(grace=seconds)))
    with pytest.raises(RemoteProtocolError, match=r"\$\.cpu_time"):
        ClientDecoder().feed(encode(Pong(cpu_time=seconds)))


@pytest.mark.anyio
async def test_a_timeout_that_the_wire_refuses_is_refused_before_it_is_sent() -> None:
    worker = ScriptedWorker()

    @worker.script("1")
    async def one(run: Run) -> int:
        return 1

    async with testing.open_session(worker) as session:
        for timeout in (1e10, float("inf"), float("nan"), 0, -1):
            with pytest.raises(ValueError, match="timeout must be"):
                await session.execute("1", timeout=timeout)
        with pytest.raises(ValueError, match="execution_id has 257"):
            await session.execute("1", execution_id="e" * 257)
        assert (await session.execute("1", timeout=1e9, execution_id="e" * 256)).value == 1
    with pytest.raises(ValueError, match="close_grace"):
        pyrepl3.WorkerConfig(close_grace=1e10)


def test_a_call_that_is_answered_with_garbage_fails_and_does_not_hang() -> None:
    """The frame is sound, the value in it is text that is no UTF-8: the caller waited for ever."""
    tally = Counter[str]()
    codes = ("f(1)", "await f(2)", "import time; time.sleep(0); f(1)")
    asked = [encode(Execute(f"e-{n}", codes[n % 3])) for n in range(36)]
    # What the calls are answered with is drawn; most of it does not decode.
    WorkerSessions(tally).check(True, Case([encode(HELLO), *asked]))
    assert tally["outcome: CapabilityError"] > 9
    assert tally["outcome: value"] > 3
    assert tally["outcome: CapabilityError"] + tally["outcome: value"] == 36


@pytest.mark.parametrize(
    "code", ["input()", "while True:\n    try:\n        input()\n    except BaseException:\n        pass"]
)
def test_a_stream_that_breaks_while_code_waits_for_a_line_is_complained_of_once_and_ends_the_worker(
    code: str,
) -> None:
    """The wait read on, and complained of the same frame for ever, as fast as it could."""
    command = [sys.executable, "-P", "-m", "pyrepl3_worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        decoder = ClientDecoder()
        said: list[FromWorker] = []
        worker.stdin.write(encode(HELLO) + encode(Execute("e", code)))
        worker.stdin.flush()
        while not any(isinstance(message, Input) for message in said):
            said += decoder.feed(os.read(worker.stdout.fileno(), 65536))
        worker.stdin.write(b"\0\0\0\1\xc1")
        worker.stdin.flush()
        # Its input stays open: it is to end by itself.
        while data := os.read(worker.stdout.fileno(), 65536):
            said += decoder.feed(data)
        complaints = [m for m in said if isinstance(m, Error) and m.execution_id is None]
        assert [complaint.kind for complaint in complaints] == ["protocol"]
        assert worker.wait() == 0


def test_a_timeout_that_is_over_before_the_code_has_begun_ends_the_execution() -> None:
    """A task cancelled before its first step never takes it: its execution, and all after it, had no end."""
    codes = ("import asyncio; await asyncio.sleep(0)", "import time; time.sleep(0)", "1 + 1", "await f(1)")
    asked = [encode(Execute(f"e-{n}", codes[n % 4], timeout=5e-324)) for n in range(200)]
    tally = Counter[str]()
    WorkerSessions(tally).check(True, Case([encode(HELLO), *asked]))
    assert tally["outcome: TimeoutError"] > 10
