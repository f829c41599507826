"""Configuration, errors, results, and the way frames go out."""

import asyncio
import contextvars
import inspect
import os
import pickle
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyrepl3_client as pyrepl3
from pyrepl3_client import ErrorInfo, ExecutionResult, ExecutorConfig, WorkerConfig, errors
from pyrepl3_client._launch.worker import WorkerPipes
from pyrepl3_client._wire.writer import FrameWriter
from pyrepl3_client.results import LazyText

# --- configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spawn_timeout", "cancel_grace", "kill_grace", "close_grace"])
@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_means_nothing_is_refused_by_name(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        WorkerConfig(**{name: seconds})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"python": ""}, "python"),
        ({"spawn_timeout": 0}, "spawn_timeout"),
        ({"env": {"A=B": "c"}}, "A=B"),
        ({"env": {"": "c"}}, "env"),
        ({"env": {"A": "b\0"}}, "env"),
        ({"warm": ("a b",)}, "'a b'"),
        ({"warm": ("a,b",)}, "'a,b'"),
        ({"warm": ("",)}, "''"),
    ],
)
def test_what_could_not_work_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerConfig(**options)  # pyright: ignore[reportArgumentType]


def test_one_string_is_not_many_modules() -> None:
    with pytest.raises(TypeError, match="not the string 'numpy'"):
        WorkerConfig(warm="numpy")  # pyright: ignore[reportArgumentType]


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        WorkerConfig().python = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_no_grace_at_all_is_allowed() -> None:
    config = WorkerConfig(cancel_grace=0, kill_grace=0, close_grace=0, executor=ExecutorConfig(cache_size=0))
    assert config.executor.cache_size == 0


# --- errors -------------------------------------------------------------------------------------------

RESULT = ExecutionResult(
    execution_id="e",
    error=ErrorInfo(kind="exception", type="ValueError", message="m"),
    stdout_text=LazyText(["a", "b"]),
)
EXAMPLES: dict[type[BaseException], tuple[object, ...]] = {
    errors.ExecutionFailed: (RESULT,),
    errors.ExecutionTimeout: (RESULT,),
    errors.ExecutionCancelled: (RESULT,),
    errors.WorkerDied: ("it died", 3, None, "words", ("e",), "why", 2),
    errors.SpawnError: ("it died", None, 9),
    errors.ProtocolError: ("bad length", 17),
}
TREE = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_in_the_tree_and_survives_pickling(kind: type[Exception]) -> None:
    assert issubclass(kind, pyrepl3.PyRepl3Error)
    error = kind(*EXAMPLES.get(kind, ("text",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", [errors.ExecutionTimeout, errors.WorkerUnresponsive])
def test_what_is_about_time_is_a_timeout_error(kind: type[Exception]) -> None:
    assert issubclass(kind, TimeoutError)


@pytest.mark.parametrize(
    ("exit_code", "signal", "words"),
    [
        (3, None, "exit code 3"),
        (None, 9, "killed by SIGKILL"),
        (None, 40, "killed by signal 40"),
        (None, None, ""),
    ],
)
def test_endings_in_words(exit_code: int | None, signal: int | None, words: str) -> None:
    assert errors.describe_exit(exit_code, signal) == words


def test_a_death_with_much_running_names_a_few() -> None:
    text = str(pyrepl3.WorkerDied("it died", running=tuple(f"e{number}" for number in range(1000))))
    assert text == "it died; running: e0, e1, e2, e3, e4 and 995 more"


# --- results ------------------------------------------------------------------------------------------


@given(st.lists(st.text()))
def test_text_in_pieces_is_the_text(pieces: list[str]) -> None:
    text = LazyText(list(pieces))
    assert str(text) == "".join(pieces)
    assert str(text) == "".join(pieces)
    assert text == LazyText(["".join(pieces)])
    assert hash(text) == hash(LazyText(["".join(pieces)]))


def test_a_result_with_much_output_has_a_short_repr() -> None:
    result = ExecutionResult(execution_id="e", stdout_text=LazyText(["x" * 1_000_000]))
    assert len(repr(result)) < 1000
    assert len(result.stdout) == 1_000_000


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        RESULT.value = 5  # pyright: ignore[reportAttributeAccessIssue]


# --- the way out --------------------------------------------------------------------------------------


@pytest.fixture
async def way_out() -> AsyncIterator[tuple[FrameWriter, int]]:
    """Give an outbox and the end that a worker reads from."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    ends = WorkerPipes(writer, -1, -1, -1, -1, -1)
    outbox = FrameWriter(ends, contextvars.copy_context())
    yield outbox, reader
    outbox.close_now()
    os.close(reader)


def read(fd: int) -> bytes:
    """Read what is there."""
    try:
        return os.read(fd, 1 << 24)
    except BlockingIOError:
        return b""


@pytest.mark.anyio
async def test_a_lone_frame_goes_out_at_once(way_out: tuple[FrameWriter, int]) -> None:
    outbox, reader = way_out
    outbox.write_now(b"frame")
    assert read(reader) == b"frame"


@pytest.mark.anyio
async def test_frames_of_one_turn_go_out_together_and_before_what_is_written_after(
    way_out: tuple[FrameWriter, int],
) -> None:
    outbox, reader = way_out
    outbox.write_batched(b"1")
    outbox.write_batched(b"2")
    assert read(reader) == b""
    await asyncio.sleep(0)
    assert read(reader) == b"12"
    outbox.write_batched(b"3")
    outbox.write_now(b"4")
    assert read(reader) == b"34"
    await asyncio.sleep(0)
    assert read(reader) == b""


@pytest.mark.anyio
async def test_a_full_pipe_delays_and_loses_nothing(way_out: tuple[FrameWriter, int]) -> None:
    outbox, reader = way_out
    sent = bytes(range(256)) * 4096
    outbox.write_now(sent)
    outbox.write_batched(b"put")
    outbox.write_now(b"written")
    outbox.close()
    got = b""
    while len(got) < len(sent) + 10:
        got += read(reader)
        await asyncio.sleep(0)
    assert got == sent + b"putwritten"
    await asyncio.sleep(0)
    assert os.read(reader, 1) == b"", "and then its end"


@pytest.mark.anyio
async def test_nobody_reads_any_more(way_out: tuple[FrameWriter, int]) -> None:
    outbox, reader = way_out
    outbox.write_now(b"x" * (1 << 20))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, reader)
    os.close(null)
    await asyncio.sleep(0.01)
    outbox.write_now(b"more")
    outbox.close()
