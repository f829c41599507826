"""Real workers over their real pipes, told what no client would tell them.

A life: a greeting, then a stream of messages that are sound as frames and mad in what they say (ids that
nobody gave, answers that nobody asked for, out of turn, doubled, extremes of every type), and last a
frame that is none, or an end in mid-frame, or a shutdown. Every `execute` is answered exactly once, every
ping is, what comes back is always frames; the end is an exit status and a word, no signal and no traceback.
"""

import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final, Self

import msgspec

from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, encode, encode_value
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import (
    Call,
    CallError,
    CallResponse,
    Cancel,
    CapabilitySpec,
    Checkpoint,
    Complete,
    Error,
    Execute,
    FromWorker,
    GetStats,
    Hello,
    Input,
    InputResponse,
    Inspect,
    Ping,
    Pong,
    Ready,
    Restore,
    Result,
    Shutdown,
    ToWorker,
)
from tests.stress.fuzz.mutations import Case, Corpus, describe, framed, golden, make_case, mutate_body

_WAIT: Final = 10.0
_MOST_KIB: Final = 160 * 1024
"""Resident memory that a worker may ever have."""
_BATCH: Final = 40
"""Messages between two pings that must be answered."""
_CODES: Final = (
    "1 + 1", "x = 1", "print('text')", "import os; os.write(1, b'past Python')", "input('? ')", "f(1)",
    "await f(2)", "import asyncio; await asyncio.sleep(0)", "raise ValueError('no')", "1 +", "",
    "import time; time.sleep(0.001)", "def g():\n    yield 1\nlist(g())", "x", "del x", "{'a': [1, b'']}",
    "import asyncio; asyncio.create_task(asyncio.sleep(0)); None", "return 5", "\0", "f(input('! '))",
)  # fmt: skip
"""What is run. Code is never mutated: what it might do is not the frames' doing."""
HELLO: Final = Hello(PROTOCOL, "fuzz", capabilities=[CapabilitySpec("f")])
_ANSWERS: Final = (
    b"\xc0",
    b"\x01",
    b"\xa4\xff\xfe\xfd\xfc",
    b"\x81\x80\x01",
    b"\x81\x90\x01",
    b"\xd4\x05\x00",
)
"""Values that a call is answered with; some do not decode."""


def _live_messages() -> list[ToWorker]:
    """What a client of this worker could really be about to say."""
    messages: list[ToWorker] = [
        Ping(7), GetStats("s"), Inspect("", 0), Inspect("x", 1, "i"), Complete("pri", 3, "c"),
        Complete("import o", 8), Complete("x.", 2), Checkpoint("c-1"), Checkpoint("c-2", known=["d"]),
        Restore("c-1"), Restore("c-1", data=b"\x80"), Restore("c-9", data=b"\x93\x01", blobs={"d": b"x"}),
        Cancel("e-1"), Cancel("e-404"), Cancel("e-2", "interrupt"), Cancel("e-3", "timeout"), HELLO,
        InputResponse("e-1:input:1", "a"), InputResponse("e-2:input:1", eof=True),
        InputResponse("z", error="no"),
        CallResponse("e-1:f:1", encode_value(1)), CallResponse("e-2:f:1", error=CallError("KeyError", "k")),
        CallResponse("z"), CallResponse("e-3:f:1"),
    ]  # fmt: skip
    for number, code in enumerate(_CODES):
        messages.append(Execute(f"e-{number % 8}", code))
        messages.append(
            Execute(f"e-{number % 8}", code, timeout=5.0, result_mode="none", store_history=False)
        )
    return messages


class WorkerSessions:
    """The target of processes for `worker`."""

    def __init__(self, tally: Counter[str]) -> None:
        self._tally = tally
        self._live = Corpus()
        for message in _live_messages():
            self._live.add(encode(message)[4:])
        self._one = msgspec.msgpack.Decoder[ToWorker](ToWorker.__value__)

    def make(self, chance: Random) -> tuple[bool, Case]:
        """Return the frames of the whole life of a worker."""
        if chance.random() < 0.15:
            # No greeting, or a strange one.
            return True, make_case(chance, golden(to_worker=True), wrong=1.0)
        frames = [encode(HELLO)]
        for _ in range(chance.choice((100, 400, 1200))):
            frames += self._sound(chance)
        last = chance.random()
        if last < 0.8:
            frames.append(self._unsound(chance))
        elif last < 0.9:
            frames.append(encode(Shutdown(grace=chance.choice((0.0, 0.5, 2.0, 1e9)))))
        return True, Case(frames, choice=chance.getrandbits(32))

    def _sound(self, chance: Random) -> list[bytes]:
        """Return a frame that decodes, twice now and then."""
        corpus = self._live if chance.random() < 0.8 else golden(to_worker=True)
        body = chance.choice(corpus.bodies)
        if chance.random() < 0.8:
            for _ in range(8):
                mutated = mutate_body(chance, corpus)
                if self._decoded(mutated) is not None:
                    body = mutated
                    break
        message = self._decoded(body)
        if message is None or isinstance(message, Shutdown):
            message = Ping(chance.getrandbits(16))
            body = encode(message)[4:]
        if isinstance(message, Execute) and message.code not in _CODES:
            body = encode(msgspec.structs.replace(message, code=chance.choice(_CODES)))[4:]
        return [framed(body)] * (2 if chance.random() < 0.05 else 1)

    def _unsound(self, chance: Random) -> bytes:
        while True:
            body = mutate_body(chance, golden(to_worker=True))
            if self._decoded(body) is None:
                return framed(body) if chance.random() < 0.9 else framed(body)[: chance.randrange(1, 4)]

    def _decoded(self, body: bytes) -> ToWorker | None:
        try:
            return self._one.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def check(self, to_worker: bool, case: Case) -> None:
        """Live a worker's life."""
        with _Worker(Random(case.choice), self._tally) as worker:
            worker.live(case)

    def settle(self) -> None:
        """Nothing is left over."""
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        raise AssertionError(f"a child is left: {pid}")


class _Worker:
    """One process, and what it has been asked and has answered."""

    def __init__(self, chance: Random, tally: Counter[str]) -> None:
        self._chance = chance
        self._tally = tally
        command = [sys.executable, "-P", "-m", "pyrepl3_worker", "--parent", str(os.getpid())]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._decoder = ClientDecoder()
        self._nonces = itertools.count(2**40)
        self._pong: int | None = None
        self._asked: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._complaints: list[str] = []
        self._answers: list[bytes] = []
        self._ready: Ready | None = None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            # Whatever a pipe that nobody reads still has to say.
            try:
                stream.close()
            except BrokenPipeError:
                continue

    def live(self, case: Case) -> None:
        """Send the frames, answer questions, see the end."""
        greeted = self._greeted(case)
        known = WorkerDecoder()
        error: RemoteProtocolError | None = None
        batch: list[bytes] = []
        shut = False
        for frame in case.frames:
            try:
                messages = known.feed(frame)
                error = known.error
            except RemoteProtocolError as raised:
                messages, error = [], raised
            batch.append(frame)
            self._asked.update(message.execution_id for message in messages if isinstance(message, Execute))
            shut = shut or any(isinstance(message, Shutdown) for message in messages)
            if shut or error is not None:
                break  # it reads no further
            if greeted and len(batch) >= _BATCH and not known.frames.buffered:
                self._send(batch)
                batch = []
                self._settled()
        self._send(batch)
        if greeted and error is None and not shut and not known.frames.buffered:
            self._settled()
            assert self._asked == self._answered, (
                f"{self._asked - self._answered} have no answer of their own"
            )
        self._end(error, greeted=greeted)

    def _greeted(self, case: Case) -> bool:
        """Return whether the stream begins with a greeting that a worker takes."""
        try:
            messages = WorkerDecoder().feed(case.stream)
        except RemoteProtocolError:
            return False
        return bool(messages) and isinstance(messages[0], Hello) and messages[0].protocol == PROTOCOL

    # --- to and from it ------------------------------------------------------------------------------

    def _send(self, frames: list[bytes]) -> None:
        data = memoryview(b"".join(frames))
        until = time.monotonic() + _WAIT
        while data and not self._ended:
            readable, writable, _ = select.select([self._out], [self._in], [], _WAIT)
            assert time.monotonic() < until, "it takes no more bytes"
            if readable:
                self._read()
            if writable:
                try:
                    data = data[os.write(self._in, data[:65536]) :]
                except BrokenPipeError:
                    self._ended = True
                except BlockingIOError:
                    continue
        self._answer()

    def _answer(self) -> None:
        while self._answers and not self._ended:
            answers, self._answers = self._answers, []
            self._send(answers)

    def _read(self) -> None:
        data = os.read(self._out, 1 << 20)
        if not data:
            self._decoder.close()
            self._ended = True
            return
        for message in self._decoder.feed(data):
            self._take(message)
        assert self._decoder.error is None, f"its own frames are broken: {self._decoder.error}"

    def _take(self, message: FromWorker) -> None:
        self._tally["messages from workers"] += 1
        match message:
            case Ready():
                assert self._ready is None, "ready came twice"
                self._ready = message
            case Pong():
                self._pong = message.nonce
            case Result():
                self._answered[message.execution_id] += 1
                self._tally["outcome: value"] += 1
            case Error(execution_id=str(key)):
                self._answered[key] += 1
                self._tally[f"outcome: {message.exception}"] += 1
            case Error():
                assert message.kind == "protocol", message
                self._complaints.append(message.message)
            case Input():
                self._answers.append(encode(InputResponse(message.input_id, "a line")))
            case Call():
                value = msgspec.Raw(self._chance.choice(_ANSWERS))
                self._answers.append(encode(CallResponse(message.call_id, value)))
            case _:
                pass

    def _settled(self) -> None:
        """Wait until a ping is answered and so is every execution."""
        nonce = next(self._nonces)
        self._send([encode(Ping(nonce))])
        self._wait(lambda: self._pong == nonce, "no pong came")
        self._wait(lambda: self._answered.total() >= self._asked.total(), "executions are not answered")
        self._weigh()

    def _weigh(self) -> None:
        # Not what waiting for it gives: that counts the moment before its program was loaded, when it is us.
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        assert peak <= _MOST_KIB, f"it took {peak // 1024} MiB"
        self._tally["times a worker was weighed"] += 1

    def _wait(self, condition: Any, what: str) -> None:
        until = time.monotonic() + _WAIT
        while not condition():
            left = until - time.monotonic()
            unanswered = self._asked - self._answered
            assert left > 0, f"{what}: {describe(unanswered)}, {self._answers}, {self._complaints[-3:]}"
            assert not self._ended, f"it ended: {self._complaints[-3:]} {self._last_words()}"
            if select.select([self._out], [], [], left)[0]:
                self._read()
            self._answer()

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read().decode(errors="replace")

    # --- the end -------------------------------------------------------------------------------------

    def _end(self, error: RemoteProtocolError | None, *, greeted: bool) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._ended = True
        until = time.monotonic() + _WAIT
        while not self._ended:
            assert select.select([self._out], [], [], max(until - time.monotonic(), 0))[0], "it does not end"
            self._read()
        words = self._last_words()
        code = self._process.wait()
        assert "Traceback" not in words, words
        assert code in (0, 70), f"status {code}: {words}"
        self._tally[f"workers ended with status {code}"] += 1
        if error is not None:
            assert self._complaints, f"it said nothing of {error}"
            self._tally["workers told why they end"] += 1
        if not greeted and error is not None:
            assert code == 70, f"status {code} without a greeting"
        over = self._answered - self._asked
        assert not over, f"answers that nobody asked for: {over}"
