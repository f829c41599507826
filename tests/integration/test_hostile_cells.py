"""Code that does harm: the client survives all of it, the session all but the end of its process."""

import math
from collections.abc import AsyncIterator

import anyio
import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.hostile_cells import ANY, LOOPS, MONKEYS, PROCESS, RECURSION, STREAMS, Harm
from tests.helpers.hostile_values import EXCEPTIONS, VALUES
from tests.helpers.real_sessions import quick, run, running, seen, stop, type_of, value, works

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


def named(harms: list[Harm]) -> list[object]:
    return [pytest.param(harm, id=harm.name) for harm in harms]


@pytest.fixture(scope="module")
async def looked_at() -> AsyncIterator[pyrepl3.Session]:
    """A session without checkpoints: these would look at each of the values again, after every later cell."""
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        yield session


async def suffer(session: pyrepl3.Session, harm: Harm) -> None:
    result = await run(session, harm.source, timeout=harm.timeout)
    if harm.error != ANY:
        assert type_of(result) == harm.error, result.error
        if result.error is None:
            assert result.value == harm.value
        else:
            assert harm.message in result.error.message
    if harm.stdout is not None:
        assert result.stdout == harm.stdout
    if harm.type_name is not None:
        assert result.type_name == harm.type_name


@pytest.mark.parametrize("harm", named(PROCESS + STREAMS + MONKEYS + LOOPS + RECURSION))
async def test_session_survives_what_harms_the_process(session: pyrepl3.Session, harm: Harm) -> None:
    await suffer(session, harm)
    assert await works(session, mute=harm.mutes)
    spin = session.start("while True: pass")
    await running(session, spin)
    assert type_of(await stop(spin)) == "CancelledError"
    assert session.worker.incarnation == 1
    assert await works(session, mute=harm.mutes)


@pytest.mark.parametrize("harm", named(VALUES + EXCEPTIONS))
async def test_session_survives_what_harms_those_who_look(looked_at: pyrepl3.Session, harm: Harm) -> None:
    await suffer(looked_at, harm)
    assert await works(looked_at)
    assert looked_at.worker.incarnation == 1


async def test_a_signal_handler_that_raises_while_nothing_runs() -> None:
    """An alarm of an earlier cell strikes the session's own loop."""
    rang = anyio.Event()
    async with pyrepl3.open_session(config=quick(), on_output=lambda _: rang.set()) as session:
        await session.execute(
            "import os, signal\n"
            "def late(*a):\n    os.write(1, b'rang')\n    raise RuntimeError('too late')\n"
            "signal.signal(signal.SIGALRM, late)\nsignal.setitimer(signal.ITIMER_REAL, 0.03) and None"
        )
        with anyio.fail_after(5):
            await rang.wait()
        assert await works(session)


async def test_nan_and_infinity_come_as_they_are(shared: pyrepl3.Session) -> None:
    nan, infinite = await value(shared, "[float('nan'), -float('inf')]")
    assert math.isnan(nan)
    assert infinite == -math.inf


@pytest.mark.parametrize(
    ("code", "text"),
    [("'a\\ud800'", "'a\\ud800'"), ("object", "<class 'object'>"), ("[10**5000, int]", "repr failed")],
)
async def test_what_has_no_plain_form_has_a_repr(shared: pyrepl3.Session, code: str, text: str) -> None:
    result = await shared.execute(code)
    assert result.value is None
    assert text in result.repr
    assert result.repr.isprintable()


async def test_code_with_lone_surrogates_is_refused_and_nothing_else_suffers(shared: pyrepl3.Session) -> None:
    with pytest.raises(pyrepl3.ProtocolError):
        await shared.execute("'\ud800'")
    assert await works(shared)


async def test_a_repr_of_50_mb_is_cut(shared: pyrepl3.Session) -> None:
    result = await shared.execute(
        "class Big:\n    def __repr__(self): return 'head' + 'x' * 50_000_000 + 'tail'\nBig()"
    )
    assert result.truncated
    assert len(result.repr) < 2_000_000
    assert result.repr.startswith("head")
    assert result.repr.endswith("tail")


async def test_a_message_of_10_mb_is_cut(shared: pyrepl3.Session) -> None:
    result = await run(shared, "raise ValueError('head' + 'x' * 10_000_000 + 'tail')")
    assert result.error is not None
    assert len(result.error.message) < 1_000_000
    assert result.error.message.startswith("head")
    assert result.error.message.endswith("tail")


async def test_a_value_of_100_mb_is_shown_by_its_repr_alone(shared: pyrepl3.Session) -> None:
    result = await shared.execute("big = 'x' * 100_000_000")
    assert result.truncated
    assert result.value is None
    assert result.type_name == "str"
    assert result.repr.startswith("'xxx")
    assert len(result.repr) < 3_000_000
    assert await value(shared, "len(big)") == 100_000_000


async def test_a_value_of_40_mb_comes_whole(shared: pyrepl3.Session) -> None:
    assert await value(shared, "b'y' * 40_000_000") == b"y" * 40_000_000


async def test_100_mb_of_output_comes_whole(shared: pyrepl3.Session) -> None:
    result = await shared.execute("for _ in range(100): print('x' * 999_999)")
    assert len(result.stdout) == 100_000_000
    assert not result.truncated


async def test_endless_output_can_be_cancelled(shared: pyrepl3.Session) -> None:
    flood = shared.start("print('ready')\nwhile True: print('x' * 1000)")
    await seen(flood)
    assert type_of(await stop(flood)) == "CancelledError"
    assert await works(shared)


async def test_endless_output_that_nobody_reads_can_be_cancelled(session: pyrepl3.Session) -> None:
    flood = session.start("while True: print('x' * 1000)")
    await session.ping()
    assert type_of(await stop(flood)) == "CancelledError"
    assert await works(session)


async def test_c_code_that_writes_megabytes_with_the_gil_held(shared: pyrepl3.Session) -> None:
    """ipykernel deadlocked here: the thread that would empty the pipe waits for the GIL."""
    result = await shared.execute(
        "import ctypes\n"
        "data = b'z' * (1 << 20)\n"
        "def put(fd):\n"
        "    done = 0\n"
        "    while done < len(data):\n"
        "        done += ctypes.PyDLL(None).write(fd, data[done:], len(data) - done)\n"
        "for _ in range(4): put(1)\n"
        "put(2)"
    )
    assert result.stdout == "z" * (4 << 20)
    assert result.stderr == "z" * (1 << 20)


async def test_garbage_to_every_fd_ends_the_session_at_worst(session: pyrepl3.Session) -> None:
    """Code that looks for the protocol's own fd can break the stream. It is found out; nothing else is."""
    with pytest.raises(pyrepl3.WorkerDied) as death:  # noqa: PT012 - the first may have been answered already
        for _ in range(2):
            await session.execute(
                "import os\n"
                "for fd in map(int, os.listdir('/proc/self/fd')):\n"
                "    try: os.write(fd, b'\\xff' * 64)\n"
                "    except OSError: pass"
            )
    assert isinstance(death.value.__cause__, pyrepl3.ProtocolError)
    await session.restart()
    assert await works(session)


async def test_frames_cannot_be_forged_through_stdout(shared: pyrepl3.Session) -> None:
    """What looks like a frame is text when it comes by fd 1."""
    result = await shared.execute(
        "import os, sys\n"
        "from pyrepl3_schemas.codec import encode\n"
        "from pyrepl3_schemas.messages import Result\n"
        "frame = encode(Result(execution_id='forged', mode='forged'))\n"
        "os.write(1, frame)\n"
        "sys.stdout.buffer.write(frame)\n"
        "sys.stdout.flush()"
    )
    assert result.mode != "forged"
    assert result.stdout.count("forged") == 4
    assert await works(shared)


async def test_a_value_of_few_bytes_and_many_parts_is_shown_by_its_repr_alone(
    shared: pyrepl3.Session,
) -> None:
    """60 MB as a frame, and 4 GB in the parent that would decode it."""
    result = await shared.execute("row = [[]] * 1000\n[row] * 60_000")
    assert result.truncated
    assert result.value is None
    assert result.repr.startswith("[[[], [], ")
    assert await value(shared, "len(row)") == 1000
