"""A worker that lies: a real process that speaks the protocol, and does what the code it is given names.

Run as if it were a Python interpreter (`… pyrepl3_worker --frames IN,OUT …`). The environment says how it
lies before anybody gives it code. What it is not told to lie about, it answers like an honest worker.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from pyrepl3_schemas.codec import WorkerDecoder, encode, encode_value
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.messages import (
    Call,
    Checkpoint,
    Checkpointed,
    Chunk,
    Completions,
    Display,
    Error,
    Execute,
    FromWorker,
    Hello,
    Input,
    Inspection,
    Metrics,
    Output,
    OutputRest,
    Ping,
    Pong,
    Ready,
    Response,
    Restore,
    Restored,
    Result,
    Shutdown,
    Stats,
)

HOW = os.environ.get("LIE", "")
if "--frames" in sys.argv:
    for frames, target in zip(sys.argv[sys.argv.index("--frames") + 1].split(","), (0, 1), strict=True):
        os.dup2(int(frames), target)
        os.close(int(frames))
READY = Ready(protocol=PROTOCOL, pid=os.getpid(), python="lies", max_frame_bytes=2**26)
METRICS = Metrics(0, 0, 0, 0.0, [], {}, 0, 0, 0.0, 0, 0, 0, 0)
NIL = encode_value([])
NONE = encode_value({})
ended: list[str] = []

type Lie = Callable[[str], object]


def write(data: bytes, fd: int = 1) -> None:
    """Write bytes, all of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def send(*messages: FromWorker) -> None:
    """Send messages in one write."""
    write(b"".join(map(encode, messages)))


def call(i: str, n: object = 1, args: msgspec.Raw = NIL, *, name: str = "f", of: str = "") -> Call:
    """A call of execution `i`."""
    return Call(call_id=of or f"{i}:{name}:{n}", execution_id=i, capability=name, args=args, kwargs=NONE)


def prompt(i: str, n: int = 1) -> Input:
    """A prompt of execution `i`."""
    return Input(input_id=f"{i}:input:{n}", execution_id=i, prompt="?")


def done(i: str) -> Result:
    """The honest end of an execution."""
    return Result(execution_id=i, mode="lie", value=encode_value(42), repr="42", type_name="int")


def failure(i: str | None, text: str = "") -> Error:
    """An error."""
    return Error(kind="exception", exception="Lie", message=text, execution_id=i)


def say(text: str, i: str | None = None, **more: bool) -> Output:
    """Some output."""
    return Output(stream="stdout", data=text, execution_id=i, **more)


def dribble() -> None:
    """Begin a long frame and give a byte of it at a time."""
    write(b"\0\1\0\0")
    while True:
        write(b"\x80")
        time.sleep(0.002)


def forever(message: FromWorker) -> None:
    """Send one message again and again."""
    frames = encode(message) * 1000
    while True:
        write(frames)


def captured(i: str, size: int) -> Result:
    """Write past Python, and end."""
    write(b"x" * size, int(sys.argv[sys.argv.index("--capture") + 1].split(",")[0]))
    return done(i)


LIES: dict[str, Lie] = {
    # --- ends ---
    "honest": lambda i: send(done(i)),
    "end a stranger": lambda i: send(done("stranger")),
    "fail a stranger": lambda i: send(failure("stranger")),
    "end an ended one": lambda i: send(done(ended[-1])),
    "end twice": lambda i: send(done(i), done(i)),
    "end a long stranger": lambda i: send(done("s" * 10**6)),
    "end b": lambda i: send(done("b")),
    "fail b": lambda i: send(failure("b")),
    # --- output ---
    "write as a stranger": lambda i: send(say("x", "stranger")),
    "write as b": lambda i: send(say("x", "b")),
    "write without end": lambda i: forever(say("x" * 1000, i)),
    "rest as a stranger": lambda i: send(OutputRest("stdout", "x", "stranger")),
    "rest without end": lambda i: forever(OutputRest("stdout", "x" * 1000, i)),
    "write letters": lambda i: send(*[say("x", i)] * 100_000, done(i)),
    "show as a stranger": lambda i: send(Display({"text/plain": "x"}, "stranger")),
    "show much": lambda i: send(*[Display({"text/plain": "x" * 20_000}, i)] * 100, done(i)),
    "write late without end": lambda i: forever(say("x", i, late=True)),
    "write past Python": lambda i: send(captured(i, 20_000_000)),
    "write last words": lambda i: (write(b"last words\n" * 500_000, 2), send(done(i))),
    # --- calls ---
    "call what was not offered": lambda i: send(call(i, name="os.system")),
    "call as a stranger": lambda i: send(call("stranger")),
    "call as b": lambda i: send(call("b")),
    "call twice": lambda i: send(call(i), call(i)),
    "call twice otherwise": lambda i: send(call(i), call(i, args=encode_value([1]))),
    "call under a foreign id": lambda i: send(call(i, of="b:f:1")),
    "call under a long id": lambda i: send(call(i, of="x" * 10**6)),
    "call under no number": lambda i: send(call(i, "1.x")),
    "call with a map": lambda i: send(call(i, args=NONE)),
    "call with deep data": lambda i: send(call(i, args=msgspec.Raw(b"\x91" * 100_000 + b"\x01"))),
    "call after the end": lambda i: send(done(i), call(i)),
    "call after the end without end": lambda i: send(done(i), *[call(i, n) for n in range(2000)]),
    "call a lot": lambda i: send(*[call(i, n) for n in range(1, 20_001)], done(i)),
    "call a lot at length": lambda i: send(
        *[call(i, n, encode_value([b"x" * 100_000])) for n in range(1, 201)], done(i)
    ),
    "call and never read": lambda i: (send(*[call(i, n) for n in range(1, 201)]), time.sleep(60)),
    # --- prompts ---
    "ask twice": lambda i: send(prompt(i), prompt(i)),
    "ask as a stranger": lambda i: send(prompt("stranger")),
    "ask without end": lambda i: send(*[prompt(i, n) for n in range(1, 5001)]),
    # --- answers to nothing ---
    "pong": lambda i: send(Pong(nonce=7)),
    "stats": lambda i: send(Stats(METRICS, "7")),
    "completions": lambda i: send(Completions("7")),
    "inspection": lambda i: send(Inspection("7" * 10**6)),
    "checkpointed": lambda i: send(Checkpointed("c", b"data")),
    "restored": lambda i: send(Restored("c")),
    "response": lambda i: send(Response("r7")),
    "chunk": lambda i: send(Chunk("r7", 0)),
    "ready": lambda i: send(READY),
    "complain": lambda i: send(*[failure(None, "woe " * 100_000)] * 30),
    # --- bytes ---
    "no length": lambda i: write(b"\0\0\0\0"),
    "too long": lambda i: write(b"\x7f\xff\xff\xff"),
    "no message": lambda i: write(b"\0\0\0\1\x80"),
    "unknown type": lambda i: write(b"\0\0\0\x09\x81\xa4type\xa2no"),
    "long unknown type": lambda i: write(b"\0\x0f\x42\x4a\x81\xa4type\xdb\0\x0f\x42\x3f" + b"n" * 999_999),
    "invalid UTF-8": lambda i: write(encode(say("abcd", i)).replace(b"abcd", b"\xff\xff\xff\xff")),
    "deep": lambda i: write((100_000).to_bytes(4) + b"\x91" * 100_000),
    "deep value": lambda i: send(
        Result(i, "lie", value=msgspec.Raw(b"\x91" * 100_000 + b"\x01"), repr="deep"),
    ),
    "a reason of a megabyte": lambda i: send(failure(i, "m" * 10**6)),
    "half a length": lambda i: write(b"\0\0"),
    "a length and nothing": lambda i: write(b"\0\0\1\0"),
    "half a frame": lambda i: write(encode(say("x" * 10**6, i))[:-1]),
    "half a frame, idle": lambda i: (send(done(i)), write(b"\0\0\1\0abc")),
    "byte by byte": lambda i: dribble(),
    "close": lambda i: os.close(1),
    "close in a frame": lambda i: (write(b"\0\0\1\0abc"), os.close(1)),
}


def checkpoint(message: Checkpoint) -> None:
    """Answer as the environment says."""
    n, name = len(message.known), message.checkpoint_id
    answers: dict[str, Checkpointed] = {
        "empty parts": Checkpointed(name),
        "old parts": Checkpointed(name, blobs={"d": b"x"}),
        "endless parts": Checkpointed(name, blobs={f"d{n}": b"x" * 100_000}),
        "missing parts": Checkpointed(name, b"data", needs=["d1", "d2"]),
    }
    send(answers.get(HOW, Checkpointed(name, b"data")))


def greet() -> None:
    """Answer the greeting as the environment says."""
    replace: Any = msgspec.structs.replace
    match HOW:
        case "never ready":
            return
        case "half ready":
            write(encode(READY)[:-1])
        case "another protocol":
            send(replace(READY, protocol=PROTOCOL + 1))
        case "tiny frames":
            send(replace(READY, max_frame_bytes=100))
        case "confined":
            names = ("no_new_privs", "system_calls", "no_capabilities", "files", "processes", "network")
            send(replace(READY, confinement=list(names)))
        case "talks early":
            send(Pong(), READY)
        case "refuses":
            send(failure(None, "no " * 10**6))
            sys.exit(70)
        case _:
            send(READY)


def serve() -> None:
    """Read and answer until the end of the input."""
    decoder = WorkerDecoder()
    while data := os.read(0, 2**20):
        for message in decoder.feed(data):
            match message:
                case Hello():
                    greet()
                case Execute():
                    LIES[message.code](message.execution_id)
                    ended.append(message.execution_id)
                case Ping():
                    send(Pong(nonce=message.nonce))
                case Checkpoint():
                    checkpoint(message)
                case Restore() if HOW == "refuses to restore":
                    send(failure(None, f"{message.checkpoint_id}: I will not"))
                case Restore():
                    send(Restored(message.checkpoint_id))
                case Shutdown():
                    return
                case _:
                    pass


if __name__ == "__main__" and "pyrepl3_worker" in sys.argv:
    serve()
