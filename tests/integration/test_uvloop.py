"""The client on uvloop's event loop, in the program."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3

uvloop = pytest.importorskip("uvloop", reason="uvloop is of the group notebooks")


@pytest.fixture(scope="module", autouse=True)
def a_loop_before() -> None:
    """Run a loop before any test: uvloop keeps a pipe for as long as the process lives."""
    uvloop.run(asyncio.sleep(0))


async def use(session: pyrepl3.Session) -> None:
    """Do with a session what needs pidfds, pipes, signals, threads and timers."""
    written = await session.execute(
        "import os, time; os.write(1, b'raw '); os.system('echo child'); print('x')"
    )
    assert sorted(written.stdout.split()) == ["child", "raw", "x"]
    assert (await session.execute("input('name? ') + f('!')")).value == "Ada!!"
    with pytest.raises(pyrepl3.ExecutionTimeout):
        await session.execute("while True: pass", timeout=0.2)
    execution = session.start("print('begun', flush=True); time.sleep(60)")
    events = aiter(execution)
    assert isinstance(await anext(events), pyrepl3.Output)
    await execution.cancel()
    running = session.start("print('begun', flush=True); time.sleep(60)")
    waiting = asyncio.create_task(session.execute("'behind'"))
    assert isinstance(await anext(aiter(running)), pyrepl3.Output)
    waiting.cancel()
    await running.cancel("interrupt")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    flood = await session.execute("for i in range(100_000): print(i)")
    assert flood.stdout.endswith("99999\n")
    await session.set(big=b"x" * 5_000_000)
    assert len(await session.get("big")) == 5_000_000
    await session.execute("x = 5")
    await session.checkpoint()
    os.kill(session.worker.pid, signal.SIGKILL)
    assert (await session.execute("x")).value == 5
    died = await session.execute("os._exit(3)", check=False)
    assert died.error is not None
    assert died.error.kind == "died"
    assert (await session.execute("x")).value == 5
    assert len(session.recoveries) == 2
    await session.restart()


def echo(text: str) -> str:
    return text


def test_a_session_works_on_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        store = tmp_path / "s.db"
        async with pyrepl3.open_session(
            "s", store=store, on_input=lambda prompt: "Ada!", capabilities={"f": echo}
        ) as session:
            await use(session)
            await session.execute("y = 1")
        async with pyrepl3.open_session("s", store=store) as session:
            assert (await session.execute("y")).value == 1
        async with pyrepl3.WorkerPool(1) as pool, pool.open_session() as session:
            assert (await session.execute("1")).value == 1
        opening = asyncio.create_task(pyrepl3.open_session().__aenter__())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    uvloop.run(main())


def test_a_session_that_nobody_closed_ends_with_its_loop() -> None:
    async def main() -> int:
        session = await pyrepl3.open_session()
        return session.worker.pid

    with pytest.warns(ResourceWarning, match="its event loop ends"):
        pid = uvloop.run(main())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
