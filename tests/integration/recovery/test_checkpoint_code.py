"""Objects whose own code does not behave while a checkpoint is taken or brought back."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import Checkpoint, Checkpointed, Restore, Restored
from tests.helpers.real_sessions import PATIENCE, quick, value

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture
async def asked() -> AsyncIterator[pyrepl3.Session]:
    """A session that takes the checkpoints it is asked for, and no others."""
    async with pyrepl3.open_session(config=quick(), recovery="none") as session:
        yield session


async def taken(session: pyrepl3.Session, seconds: float = 0.2) -> Checkpointed:
    """Have the worker take a checkpoint in at most so many seconds."""
    worker = session._checkpoints._worker()  # pyright: ignore[reportPrivateUsage]
    assert worker is not None
    request = Checkpoint(checkpoint_id="c", timeout=seconds)
    with anyio.fail_after(PATIENCE):
        return await worker.requests.ask(request, Checkpointed, "c", None, urgent=False)


async def in_one_frame(session: pyrepl3.Session, saved: Checkpointed, seconds: float = 0.2) -> Restore:
    """Return what puts a checkpoint back, in at most so many seconds."""
    record = session._supervisor.record  # pyright: ignore[reportPrivateUsage]
    return Restore(
        checkpoint_id=saved.checkpoint_id,
        data=saved.data,
        blobs=await record.blobs(tuple(saved.needs)),
        timeout=seconds,
    )


def back(saved: Checkpointed, seconds: float) -> Restore:
    """Return what puts a checkpoint back that brought all of its blobs."""
    return Restore(checkpoint_id=saved.checkpoint_id, data=saved.data, blobs=saved.blobs, timeout=seconds)


async def restored(session: pyrepl3.Session, request: Restore) -> Restored:
    """Have the worker put a checkpoint back."""
    worker = session._checkpoints._worker()  # pyright: ignore[reportPrivateUsage]
    assert worker is not None
    with anyio.fail_after(PATIENCE):
        return await worker.requests.ask(request, Restored, request.checkpoint_id, None, urgent=False)


def reasons(answer: Checkpointed | Restored) -> dict[str, str]:
    return {unsaved.name: unsaved.reason for unsaved in answer.unsaved}


BAD = """
import os, sys, threading, time, itertools
before = [1]
class Bad:
    def __reduce__(self):
        {body}
        return Bad, ()
def spin():
    while True:
        pass
def swallow():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
lock = None
bad = Bad()
after = [2]
None
"""


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "spin()",
        "time.sleep(600)",
        "swallow()",
        "threading.Event().wait()",
        "held = threading.Lock(); held.acquire(); held.acquire()",
        "os.read(os.pipe()[0], 1)",
        "return list, (), None, itertools.repeat(1)",
        "return list, (), None, (n for n in itertools.count())",
        "raise type('E', (Exception,), {'__str__': lambda self: spin()})",
        "while True: print('x')",
        "import asyncio; asyncio.run(asyncio.sleep(600))",
    ],
)
async def test_an_object_that_does_not_come_to_an_end_is_named_and_all_else_is_saved(
    asked: pyrepl3.Session, body: str
) -> None:
    await asked.execute(BAD.format(body=body))
    answer = await taken(asked)
    assert list(reasons(answer)) == ["bad"]
    assert "took longer than" in reasons(answer)["bad"] or reasons(answer)["bad"] == "E"
    assert await value(asked, "before, after") == [[1], [2]]
    await asked.execute("bad = 1")
    assert reasons(await taken(asked)) == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("input('?')", "EOFError: no execution is running that could ask"),
        ("host(1)", "AsyncContextError: host() was called when no execution was running"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
        ("raise BaseException('b')", "BaseException: b"),
        ("raise TimeoutError('t')", "TimeoutError: t"),
        ("return self.__reduce__()", "it is nested too deeply"),
        ("return Bad, (Bad(),)", "it is nested too deeply"),
        ("sys.setrecursionlimit(20); return self.__reduce__()", "it is nested too deeply"),
    ],
)
async def test_an_object_that_asks_or_raises_is_named(body: str, reason: str) -> None:
    async with pyrepl3.open_session(
        config=quick(),
        recovery="none",
        capabilities={"host": abs},
        on_input=lambda _: "never",
    ) as session:
        await session.execute(BAD.format(body=body))
        found = reasons(await taken(session))
        assert list(found) == ["bad"]
        assert found["bad"].startswith(reason)
        assert await value(session, "before, after") == [[1], [2]]


@pytest.mark.parametrize(
    "body",
    [
        "print('saved')",
        "threading.Thread(target=spin, daemon=True).start()",
        "globals().update({f'new{n}': n for n in range(1000)})",
        "globals().pop('after', None)",
        "os.fork()",
        "os.fork() or os._exit(0)",
        "sys.stdout = None",
        "import builtins; vars(builtins).pop('len', None)",
        "sys.settrace(lambda *a: None)",
    ],
)
async def test_an_object_that_does_other_things_meanwhile_is_saved(asked: pyrepl3.Session, body: str) -> None:
    await asked.execute(BAD.format(body=body))
    assert reasons(await taken(asked, 5.0)) == {}
    assert await value(asked, "before, len([1])") == [[1], 1]
    assert reasons(await taken(asked, 5.0)) == {}


async def test_a_checkpoint_is_taken_with_the_builtins_as_they_were(asked: pyrepl3.Session) -> None:
    """Their replacements stay the code's."""
    await asked.execute(
        "import builtins\nbefore = {'a': [1]}\n"
        "for name in ('any', 'dict', 'getattr', 'isinstance', 'len'): setattr(builtins, name, lambda *a: 'mine')"
    )
    assert reasons(await taken(asked)) == {}
    assert await value(asked, "before, len(before), dict()") == [{"a": [1]}, "mine", "mine"]


async def test_many_objects_that_hang_share_one_limit_and_are_not_tried_again_at_once(
    asked: pyrepl3.Session,
) -> None:
    await asked.execute(BAD.format(body="spin()"))
    await asked.execute("for n in range(20): globals()[f'bad{n}'] = Bad()")
    names = {"bad", *(f"bad{n}" for n in range(20))}
    first = await taken(asked)
    assert set(reasons(first)) == names
    await asked.execute("tries = 0\ndef spin():\n global tries\n tries += 1\n raise ValueError('tried')")
    assert set(reasons(await taken(asked))) == names
    assert await value(asked, "tries") < 21


async def test_a_cancel_is_heard_while_a_checkpoint_hangs(asked: pyrepl3.Session) -> None:
    await asked.execute(BAD.format(body="print('at it', flush=True); time.sleep(600)"))
    async with anyio.create_task_group() as group:
        group.start_soon(taken, asked, 5.0)
        await anyio.wait_all_tasks_blocked()  # it has been asked for
        waiting = asked.start("1 + 1")
        with anyio.fail_after(PATIENCE):
            await waiting.cancel()
            with pytest.raises(pyrepl3.ExecutionCancelled, match="before it began"):
                await waiting.result()
    assert await value(asked, "1 + 1") == 2


async def test_an_execution_waits_no_longer_than_the_limit_of_a_checkpoint(asked: pyrepl3.Session) -> None:
    await asked.execute(BAD.format(body="spin()"))
    async with anyio.create_task_group() as group:
        group.start_soon(taken, asked)
        await anyio.wait_all_tasks_blocked()  # it has been asked for
        assert await value(asked, "1 + 1") == 2


HANGS_LATER = """
import os, time
class Late:
    def __init__(self): self.x = 1
    def __setstate__(self, state):
        {body}
late = Late()
kept = [1]
None
"""


SLEEPS = ("time.sleep(600)", "it took longer than")
SLEEPS_AND_SAYS = ("raise type('E', (Exception,), {'__str__': lambda self: time.sleep(600)})", "E")
EXITS = ("raise SystemExit(1)", "SystemExit: 1")
FORKS = ("os.fork()", None)


@pytest.mark.parametrize(
    ("store", "body", "reason"),
    [
        *(("none", *late) for late in (SLEEPS, SLEEPS_AND_SAYS, EXITS, FORKS)),
        *(("sqlite", *late) for late in (EXITS, FORKS)),
        # It sleeps for five seconds each time that a checkpoint is tried out.
        *(pytest.param("sqlite", *late, marks=pytest.mark.long) for late in (SLEEPS, SLEEPS_AND_SAYS)),
    ],
)
async def test_an_object_that_misbehaves_on_its_way_back_costs_itself_alone(
    tmp_path: Path, store: str, body: str, reason: str | None
) -> None:
    where = tmp_path / "state.db" if store == "sqlite" else None
    async with pyrepl3.open_session(config=quick(), store=where) as session:
        await session.execute(HANGS_LATER.format(body=body))
        saved = await session.checkpoint("here")
        pid = session.worker.pid
        request = await in_one_frame(session, saved)
        named = reasons(await restored(session, request))
        if reason is None:
            assert named == {}
        else:
            assert list(named) == ["late"]
            assert named["late"].startswith(reason)
        assert session.worker.pid == pid
        assert await value(session, "kept") == [1]


async def test_a_checkpoint_that_ends_its_worker_is_tried_again_ever_more_rarely() -> None:
    back = anyio.Event()

    def on_recovery(report: pyrepl3.Recovery) -> None:
        nonlocal back
        if report.progress is None:
            back.set()
            back = anyio.Event()

    async with pyrepl3.open_session(config=quick(), on_recovery=on_recovery) as session:
        scheduler = session._checkpoints  # pyright: ignore[reportPrivateUsage]
        with anyio.fail_after(3 * PATIENCE):
            await session.execute("x = 1")
            first = back
            await session.execute("import os\nclass Bad:\n    def __reduce__(self): os._exit(3)\nbad = Bad()")
            await first.wait()
            for cells in (2, 4):
                assert scheduler._timer is scheduler._task is None  # pyright: ignore[reportPrivateUsage]
                following = back
                for number in range(cells):
                    result = await session.execute("x")
                    assert result.value == 1
                    assert bool(result.notices) == (number == 0), session.recoveries
                await following.wait()
        notices = (await session.execute("x")).notices
        assert any("automatic checkpoint ended its worker" in text for text in notices), session.recoveries
        assert len(session.recoveries) == 3


async def test_standard_fds_that_a_checkpoint_closes_are_there_for_the_next_cell(
    asked: pyrepl3.Session,
) -> None:
    await asked.execute(BAD.format(body="[os.close(fd) for fd in (0, 1, 2)]") + "bad = Bad()")
    await taken(asked)
    assert await value(asked, "[os.fstat(fd).st_ino > 0 for fd in (0, 1, 2)]") == [True] * 3


async def test_plain_data_has_no_share_of_the_time_of_objects_code(asked: pyrepl3.Session) -> None:
    await asked.execute(
        "class Plain:\n    def __init__(self, n): self.n = n\n"
        "many = [(n, str(n), [n], {n: 'x'}) for n in range(60_000)]; own = [Plain(n) for n in range(20_000)]"
    )
    answer = await taken(asked, 0.002)
    assert reasons(answer) == {}
    again = back(answer, 0.002)
    await asked.restart()
    assert reasons(await restored(asked, again)) == {}
    assert await value(asked, "len(many), many[-1], own[-1].n") == [
        60_000,
        [59_999, "59999", [59_999], {59_999: "x"}],
        19_999,
    ]


SLOW = """
import time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    pass
class Thing:
    def __init__(self): self.v = 1
    def __setstate__(self, state):
        import slow_{other}
        self.__dict__.update(state, other=slow_{other}.v)
v = 7
"""


@pytest.mark.parametrize(
    "how", ["import slow_a", "from slow_a import Thing", "import slow_a; t = slow_a.Thing()"]
)
async def test_an_import_is_never_cut_in_two(asked: pyrepl3.Session, tmp_path: Path, how: str) -> None:
    for name, other in ("ab", "ba"):
        (tmp_path / f"slow_{name}.py").write_text(SLOW.format(seconds=0.5, other=other))
    await asked.execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {how}; x = 1")
    again = back(await taken(asked), 0.1)
    await asked.restart()
    assert reasons(await restored(asked, again)) == {}
    assert await value(asked, "import slow_a; slow_a.v, x") == [7, 1]


async def test_all_may_be_bounded_plain_data_too(asked: pyrepl3.Session) -> None:
    await asked.execute("small = 1; many = [[n] for n in range(1_000_000)]; last = 'x'")
    worker = asked._checkpoints._worker()  # pyright: ignore[reportPrivateUsage]
    assert worker is not None
    request = Checkpoint(checkpoint_id="c", total_timeout=0.02)
    saved = await worker.requests.ask(request, Checkpointed, "c", None, urgent=False)
    assert "many" in reasons(saved)
    assert "for all were over" in reasons(saved)["many"]
