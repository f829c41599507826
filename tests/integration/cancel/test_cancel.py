"""Cancel, interrupt and timeout against everything that code can be doing.

It is long because the matrix is: each kind of code against each way of stopping it.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_schemas.messages import CancelReason
from tests.helpers.hanging_code import ASKING, BLOCKING, CALLS, CASES, STUBBORN, HangingCell
from tests.helpers.processes import ended
from tests.helpers.real_sessions import (
    PATIENCE,
    cleanly_stopped,
    outcome,
    quick,
    run,
    running,
    seen,
    stop,
    type_of,
    value,
    works,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

KINDS = {"cancelled": "cancelled", "interrupt": "cancelled", "timeout": "timeout"}
SEEN: dict[CancelReason, str] = {
    "cancelled": "CancelledError",
    "interrupt": "KeyboardInterrupt",
    "timeout": "TimeoutError",
}


def named(cases: list[HangingCell]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.fixture(scope="module")
async def asking() -> AsyncIterator[pyrepl3.Session]:
    """A session whose questions are never answered."""

    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    async with pyrepl3.open_session(
        config=quick(), capabilities={"hang": pyrepl3.capability(never, awaitable=False)}, on_input=never
    ) as session:
        yield session


@pytest.mark.parametrize("reason", ["cancelled", "interrupt"])
@pytest.mark.parametrize("busy", named(CASES))
async def test_running_code_is_stopped(
    shared: pyrepl3.Session, busy: HangingCell, reason: CancelReason
) -> None:
    await shared.execute("kept = object(); mark = id(kept)")
    execution = shared.start(busy.code)
    await seen(execution)
    result = await stop(execution, reason)
    assert result.error is not None
    assert (result.error.kind, result.error.type) == (KINDS[reason], SEEN[reason])
    assert result.mode == busy.mode
    assert await value(shared, "id(kept) == mark") is True
    assert await works(shared)


@pytest.mark.parametrize("busy", named(CASES))
async def test_time_runs_out(shared: pyrepl3.Session, busy: HangingCell) -> None:
    result = await run(shared, busy.code, timeout=0.05)
    assert result.error is not None
    assert (result.error.kind, result.error.type) == ("timeout", "TimeoutError")
    assert "0.05 s" in result.error.message
    assert result.error.notes
    assert 0.04 < result.duration < 2
    assert await works(shared)


@pytest.fixture(scope="module")
async def threaded() -> AsyncIterator[pyrepl3.Session]:
    """A session whose blocking cells run on a thread of their own, and whose questions are never answered."""

    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    async with pyrepl3.open_session(
        config=quick(blocking="thread"),
        capabilities={"hang": pyrepl3.capability(never, awaitable=False)},
        on_input=never,
    ) as session:
        yield session


def blocking(cases: list[HangingCell]) -> list[object]:
    return named([case for case in cases if case.mode == BLOCKING])


@pytest.mark.parametrize("reason", ["cancelled", "interrupt"])
@pytest.mark.parametrize("busy", blocking([*CASES, *ASKING, *STUBBORN]))
async def test_what_runs_on_the_blocking_thread_is_stopped(
    threaded: pyrepl3.Session, busy: HangingCell, reason: CancelReason
) -> None:
    execution = threaded.start(busy.code)
    await running(threaded, execution)
    if busy in STUBBORN:
        await seen(execution)
    result = await stop(execution, reason)
    assert result.error is not None
    assert (result.error.kind, result.error.type) == (KINDS[reason], SEEN[reason])
    assert await works(threaded)
    assert threaded.worker.incarnation == 1


@pytest.mark.parametrize("busy", blocking([*CASES, *CALLS]))
async def test_time_runs_out_on_the_blocking_thread(threaded: pyrepl3.Session, busy: HangingCell) -> None:
    assert type_of(await run(threaded, busy.code, timeout=0.05)) == "TimeoutError"
    assert await works(threaded)
    assert threaded.worker.incarnation == 1


@pytest.mark.parametrize("reason", ["cancelled", "interrupt"])
@pytest.mark.parametrize("busy", named(ASKING))
async def test_what_waits_for_the_parent_is_stopped(
    asking: pyrepl3.Session, busy: HangingCell, reason: CancelReason
) -> None:
    execution = asking.start(busy.code)
    await running(asking, execution)
    result = await stop(execution, reason)
    assert result.error is not None
    assert (result.error.kind, result.error.type) == (KINDS[reason], SEEN[reason])
    assert await works(asking)
    assert asking.worker.incarnation == 1


@pytest.mark.parametrize("busy", named(CALLS))
async def test_time_runs_out_for_the_parent(asking: pyrepl3.Session, busy: HangingCell) -> None:
    result = await run(asking, busy.code, timeout=0.05)
    assert type_of(result) == "TimeoutError"
    assert await works(asking)
    assert asking.worker.incarnation == 1


@pytest.mark.parametrize("busy", named(STUBBORN))
async def test_stubborn_code_is_stopped_in_the_end_and_keeps_its_names(
    session: pyrepl3.Session, busy: HangingCell
) -> None:
    """The client asks again by itself, after `cancel_grace`."""
    await session.execute("kept = 5")
    execution = session.start(busy.code)
    await seen(execution)
    result = await stop(execution)
    assert result.error is not None
    assert result.error.kind == "cancelled"
    assert await value(session, "kept") == 5
    assert await works(session)
    assert session.worker.incarnation == 1


@pytest.mark.parametrize("busy", named(STUBBORN[1:9]))
async def test_stubborn_code_out_of_time(session: pyrepl3.Session, busy: HangingCell) -> None:
    result = await run(session, busy.code, timeout=0.05)
    assert result.error is not None
    assert result.error.kind == "timeout"
    assert await works(session)
    assert session.worker.incarnation == 1


async def test_a_second_cancel_does_not_wait_for_the_grace() -> None:
    """With graces of a minute, it is the second interrupt that ends it."""
    config = pyrepl3.WorkerConfig(cancel_grace=60, kill_grace=60)
    async with pyrepl3.open_session(config=config) as patient, anyio.create_task_group() as group:
        execution = patient.start(STUBBORN[0].code)
        await seen(execution)
        group.start_soon(execution.cancel, "interrupt")
        await seen(execution, "swallowed\n")
        result = await stop(execution, "interrupt")
        assert type_of(result) == "KeyboardInterrupt"
        assert await works(patient)


async def test_one_in_the_queue_ends_at_once_with_another_behind_it() -> None:
    """With graces of a minute: its worker held back the message of its end until the next one's."""
    config = pyrepl3.WorkerConfig(cancel_grace=60, kill_grace=60)
    async with pyrepl3.open_session(config=config) as patient:
        first = patient.start("print('ready')\nimport asyncio\nawait asyncio.sleep(60)")
        await seen(first)
        second, third = patient.start("2"), patient.start("3")
        result = await stop(second)
        assert result.error is not None
        assert "before it began" in result.error.message
        await stop(first)
        assert (await outcome(third)).value == 3


async def test_code_that_handles_an_interrupt_goes_on(shared: pyrepl3.Session) -> None:
    execution = shared.start(
        "try:\n    print('ready')\n    while True: abs(0)\nexcept KeyboardInterrupt:\n    answer = 'handled'\nanswer"
    )
    await seen(execution)
    await execution.cancel("interrupt")
    assert (await execution.result()).value == "handled"


@pytest.mark.parametrize("reason", ["cancelled", "interrupt", "timeout"])
@pytest.mark.parametrize("wait", ["while True: abs(0)", "await asyncio.sleep(60)", "time.sleep(60)"])
async def test_which_exception_the_code_sees(
    shared: pyrepl3.Session, wait: str, reason: CancelReason
) -> None:
    """A suspended task is cancelled as any task is; everything else sees the reason's own exception."""
    execution = shared.start(
        "import asyncio, time\nwhat = None\ntry:\n    print('ready')\n    " + wait + "\n"
        "except BaseException as error:\n    what = type(error).__name__\n    raise",
        timeout=0.05 if reason == "timeout" else None,
    )
    if reason == "timeout":
        await outcome(execution)
    else:
        await seen(execution)
        await stop(execution, reason)
    # It may also be struck just before it is suspended.
    expected = {"CancelledError", SEEN[reason]} if "await" in wait else {SEEN[reason]}
    assert await value(shared, "what") in expected


@pytest.mark.parametrize(
    "wait",
    [
        "while True: abs(0)",
        "await asyncio.sleep(60)",
        "time.sleep(60)",
        "time.sleep(0)\n        while True: abs(0)",  # in a cell that blocks, and never at a new line
    ],
)
async def test_finally_blocks_and_context_managers_run(shared: pyrepl3.Session, wait: str) -> None:
    execution = shared.start(
        "import asyncio, contextlib, time\n"
        "with contextlib.ExitStack() as stack:\n"
        "    stack.callback(print, 'stack')\n"
        "    try:\n"
        "        print('ready')\n"
        f"        {wait}\n"
        "    finally:\n"
        "        print('finally')"
    )
    await seen(execution)
    result = await stop(execution)
    assert result.stdout == "ready\nfinally\nstack\n"
    assert cleanly_stopped(result)


async def test_cleaning_up_may_await(shared: pyrepl3.Session) -> None:
    execution = shared.start(
        "import asyncio\ntry:\n    print('ready')\n    await asyncio.sleep(60)\n"
        "finally:\n    await asyncio.sleep(0.01)\n    print('cleaned')"
    )
    await seen(execution)
    assert (await stop(execution)).stdout == "ready\ncleaned\n"


async def hangs(session: pyrepl3.Session) -> None:
    """Wait until the worker answers no more."""
    while True:
        try:
            await session.ping(timeout=0.2)
        except TimeoutError:
            return


async def test_a_hung_c_call_is_killed(session: pyrepl3.Session) -> None:
    """With the GIL held, nothing in the process can be reached; the parent ends it."""
    execution = session.start("sum(iter(int, 1))")
    await hangs(session)
    with anyio.fail_after(10):
        await execution.cancel()
        with pytest.raises(pyrepl3.WorkerDied) as death:
            await execution.result()
    assert death.value.signal == 9
    assert execution.execution_id in death.value.running
    await session.restart()
    assert await works(session)


async def test_code_that_ignores_the_bell_is_killed(session: pyrepl3.Session) -> None:
    execution = session.start(
        "import signal\nsignal.signal(signal.SIGURG, signal.SIG_IGN)\nprint('ready')\nwhile True: pass"
    )
    await seen(execution)
    with anyio.fail_after(10):
        await execution.cancel()
        with pytest.raises(pyrepl3.WorkerDied):
            await execution.result()
    await session.restart()
    assert await works(session)


async def test_a_hung_c_call_out_of_time_is_killed(session: pyrepl3.Session) -> None:
    with anyio.fail_after(10), pytest.raises(pyrepl3.WorkerDied):
        await session.execute("sum(iter(int, 1))", timeout=0.1)
    await session.restart()
    assert await works(session)


@pytest.mark.parametrize("blocking", ["loop", "thread"])
async def test_a_hung_c_call_in_a_cell_that_blocks_is_killed(blocking: str) -> None:
    async with pyrepl3.open_session(config=quick(blocking=blocking), recovery="none") as session:
        execution = session.start("import time\ntime.sleep(0)\nsum(iter(int, 1))")
        await hangs(session)
        with anyio.fail_after(10):
            await execution.cancel()
            with pytest.raises(pyrepl3.WorkerDied):
                await execution.result()
        await session.restart()
        assert await works(session)


async def test_a_cancel_after_the_end_does_nothing(shared: pyrepl3.Session) -> None:
    done = shared.start("'done'")
    assert (await done.result()).value == "done"
    await done.cancel()
    await done.cancel("interrupt")
    assert (await done.result()).value == "done"
    assert await works(shared)


async def test_a_cancel_that_races_the_end_hits_nobody_else(shared: pyrepl3.Session) -> None:
    for _ in range(100):
        short, following = shared.start("x = sum(range(1000))"), shared.start("'following'")
        await short.cancel()
        assert (await following.result()).value == "following"
        result = await outcome(short)
        assert result.error is None or result.error.kind == "cancelled"


async def test_a_queued_execution_is_cancelled_and_the_others_run(shared: pyrepl3.Session) -> None:
    gate = shared.start(
        "import asyncio\nopened = asyncio.Event()\nprint('ready')\nran = []\nawait asyncio.sleep(60)"
    )
    await seen(gate)
    first, second, third = (shared.start(f"ran.append({n})") for n in (1, 2, 3))
    result = await stop(second)
    assert result.error is not None
    assert result.error.kind == "cancelled"
    await stop(gate)
    await first.result()
    await third.result()
    assert await value(shared, "ran") == [1, 3]


async def test_session_cancel_stops_what_runs(shared: pyrepl3.Session) -> None:
    execution = shared.start("print('ready')\nwhile True: pass")
    await seen(execution)
    await shared.cancel()
    assert cleanly_stopped(await outcome(execution))
    assert await works(shared)


async def test_a_cancelled_cell_takes_its_children_along(shared: pyrepl3.Session) -> None:
    """The shell's own child too: four sampler processes were left behind by every retry elsewhere."""
    execution = shared.start(
        "import subprocess\n"
        "child = subprocess.Popen(['sh', '-c', 'sleep 600 & echo $!; wait'], stdout=subprocess.PIPE, text=True)\n"
        "grandchild = int(child.stdout.readline())\n"
        "print('ready')\n"
        "child.wait()"
    )
    await seen(execution)
    await stop(execution)
    child, grandchild = await value(shared, "[child.pid, grandchild]")
    assert await ended(child)
    assert await ended(grandchild)


@pytest.mark.parametrize("own", ["None", "subprocess.Popen(['sleep', '600'])"])
async def test_children_of_earlier_cells_are_left_alone(shared: pyrepl3.Session, own: str) -> None:
    """Also one that began just before, though start times count in ticks of 10 ms."""
    await shared.execute("import subprocess")
    for _ in range(10):
        shared.start("server = subprocess.Popen(['sleep', '600'])")
        execution = shared.start(f"child = {own}\nprint('ready')\nwhile True: pass")
        await seen(execution)
        await stop(execution)
        assert await value(shared, "server.poll()") is None
        if own != "None":
            assert await value(shared, "child.wait()") == -9
        await shared.execute("server.kill(); server.wait()")


HOG = (
    "import asyncio\nasync def hog():\n    await asyncio.sleep(0)\n    print('ready')\n    while True: pass\n"
    "h = asyncio.create_task(hog())"
)
"""It is no execution's main flow, and holds the session's loop."""


async def hogged(stack: AsyncExitStack) -> pyrepl3.Session:
    """Yield a session whose loop is held by a background task."""
    held = anyio.Event()
    session = await stack.enter_async_context(
        pyrepl3.open_session(config=quick(), on_output=lambda _: held.set())
    )
    await session.execute(HOG)
    with anyio.fail_after(PATIENCE):
        await held.wait()
    return session


async def test_a_background_task_that_hogs_the_loop_cannot_keep_a_ping_away() -> None:
    async with AsyncExitStack() as stack:
        session = await hogged(stack)
        for _ in range(10):
            assert (await session.ping(1)).current_execution is None


async def test_cancelling_what_waits_for_a_background_task_that_hogs_the_loop() -> None:
    """The cancel reaches what holds the loop, at the latest when it is repeated; names stay."""
    async with AsyncExitStack() as stack:
        session = await hogged(stack)
        execution = session.start("await h")
        with anyio.move_on_after(0.05):
            await execution.result()
        assert cleanly_stopped(await stop(execution))
        await run(session, "h.cancel()")
        assert await works(session)


async def test_a_background_task_outlives_another_cells_cancel(shared: pyrepl3.Session) -> None:
    await shared.execute("import asyncio\nbg = asyncio.create_task(asyncio.sleep(600, 'slept'))")
    execution = shared.start("print('ready')\nawait asyncio.sleep(60)")
    await seen(execution)
    await stop(execution)
    assert await value(shared, "bg.done()") is False
    await shared.execute("bg.cancel()")


async def test_cancelling_a_hundred_times_in_a_row(shared: pyrepl3.Session) -> None:
    await shared.execute("import asyncio, time")
    for round_number in range(100):
        code = ("while True: pass", "await asyncio.sleep(60)", "time.sleep(60)")[round_number % 3]
        execution = shared.start(code)
        await running(shared, execution)
        assert cleanly_stopped(await stop(execution))
    assert await works(shared)
