"""Sessions by name of a pool, with real workers and stores: shared, passivated, brought back, never lost."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import WorkerConfig, WorkerPool
from pyrepl3_client._pool.named_session import NamedSession
from pyrepl3_client._pool.named_sessions import NamedSessions
from pyrepl3_client._session.shared import SharedSession
from tests.helpers.scripted_sessions import turns_until

# pyright: reportPrivateUsage=false

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]
QUICK = WorkerConfig(close_grace=1.0)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return where the store is."""
    return str(tmp_path / "sessions.db")


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    """Return a pool with room for one session: each other name needs the one before to be passivated."""
    async with WorkerPool(1, QUICK, fork=False, max_sessions=1, acquire_timeout=20) as pool:
        yield pool


async def run(pool: WorkerPool, name: str, code: str, store: str | None) -> object:
    """Use a session by name for one cell."""
    async with pool.session(name, store=store) as session:
        return (await session.execute(code)).value


async def test_a_name_is_the_live_session_else_from_the_store_else_new(pool: WorkerPool, store: str) -> None:
    async with pool.session("a", store=store) as one, pool.session("a", store=store) as two:
        await one.execute("x = [1]")
        assert one is not two
        assert (one.worker, (await two.execute("x")).value) == (two.worker, [1])
        pid = one.worker.pid
    async with pool.session("a", store=store) as again:
        assert again.worker.pid == pid  # nobody has needed its room
    assert await run(pool, "b", "'x' in globals()", store) is False
    assert (pool.stats().passivated, pool.stats().returned) == (1, 0)
    async with pool.session("a", store=store) as back:
        assert (await back.execute("x.append(2); x")).value == [1, 2]
        assert back.recoveries[0].restored_from is not None
        assert back.recoveries[0].replayed == ()
    assert (pool.stats().returned, pool.stats().sessions, pool.stats().held) == (1, 1, 0)


async def test_nobody_ends_it_for_others_and_a_handle_that_was_given_back_refuses(
    pool: WorkerPool, store: str
) -> None:
    one = await pool.session("a", store=store)
    async with pool.session("a", store=store) as two:
        execution = two.start("x = 1")
        await one.close()
        await one.close()
        assert (await execution).repr == "1"
        uses: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: one.execute("1"),
            one.ping,
            lambda: one.get("x"),
            lambda: one.set(x=2),
            one.checkpoint,
            one.restart,
        ]
        for use in uses:
            with pytest.raises(pyrepl3.SessionClosed, match=r"'a' was given back.*pool\.session\(\)"):
                await use()
        with pytest.raises(pyrepl3.SessionClosed, match="was given back"):
            one.start("1")
        assert repr(one) == "<Session 'a' given back>"
        await two.set(y=3)
        assert await two.get("y") == 3
    with pytest.raises(ValueError, match="not released yet"):
        await asyncio.gather(pool.release(two), pool.release(two))


async def test_many_ask_for_one_name_at_once_and_it_is_opened_once(pool: WorkerPool, store: str) -> None:
    async def use(number: int) -> int:
        async with pool.session("a", store=store) as session:
            await session.execute(f"seen = globals().get('seen', []) + [{number}]")
            return session.worker.pid

    tasks = [asyncio.ensure_future(use(number)) for number in range(30)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # the one that has begun to open it
    tasks[7].cancel()
    pids = {pid for pid in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(pid, int)}
    assert len(pids) == 1
    assert await run(pool, "a", "len(seen)", store) == 28
    assert pool.stats().opened == 1


async def test_the_last_who_gives_up_leaves_nothing(pool: WorkerPool, store: str) -> None:
    async with pool.open_session():
        asking = [asyncio.ensure_future(pool.session("a", store=store)) for _ in range(2)]
        await turns_until(lambda: pool.stats().waiting == 1)
        asking[0].cancel()
        await asyncio.wait([asking[0]])
        assert pool.stats().waiting == 1
        asking[1].cancel()
        await asyncio.wait([asking[1]])
        await turns_until(lambda: pool.stats().named == 0)
        assert pool.stats().waiting == 0
    assert await run(pool, "a", "6 * 7", store) == 42


async def test_after_its_time_an_idle_one_is_passivated_and_a_busy_one_is_not(store: str) -> None:
    go = asyncio.Event()
    async with WorkerPool(1, QUICK, fork=False, max_sessions=2, idle_timeout=0.01) as pool:
        async with pool.session("busy", store=store, capabilities={"wait": go.wait}) as session:
            execution = session.start("done = await wait()")
        await run(pool, "idle", "x = 1", store)
        await turns_until(lambda: pool.stats().passivated == 1)
        assert pool.stats().named == 1
        go.set()
        assert (await execution).value is True
        await turns_until(lambda: pool.stats().passivated == 2)
        assert pool.stats().sessions == 0
        assert await run(pool, "busy", "done", store) is True
        assert await run(pool, "idle", "x", store) == 1


LEFT: dict[str, tuple[str, str]] = {
    "a task": ("import asyncio; asyncio.create_task(asyncio.sleep(3600), name='clock')", "task clock"),
    "a thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='ticker', daemon=True).start()",
        "thread ticker",
    ),
    "a child": ("import subprocess; subprocess.Popen(['sleep', '3600']); None", "process "),
    "a server": (
        "import asyncio; await asyncio.start_server(lambda r, w: None, '127.0.0.1', 0); None",
        "a server or reader on the event loop",
    ),
    "a socket": ("import socket; s = socket.socket()", "a checkpoint cannot hold s (socket: "),
    "a generator": ("g = (n for n in [1, 2]); next(g)", "a checkpoint cannot hold g (generator: "),
}


async def test_what_would_be_lost_keeps_a_session_live_and_is_named(store: str) -> None:
    cases = LEFT
    async with WorkerPool(1, QUICK, fork=False, max_sessions=len(cases), acquire_timeout=0.5) as pool:
        for name, (code, _) in cases.items():
            await run(pool, name, f"{code}\nkept = 1", store)
        with pytest.raises(pyrepl3.PoolTimeout, match="are idle and cannot be put into a store") as error:
            await pool.acquire(5)
        assert "'a task': the code has left running: task clock" in str(error.value)
        kept = {each.name: each.reason for each in pool.stats().kept}
        assert kept.keys() == cases.keys()
        for name, (_, reason) in cases.items():
            assert reason in kept[name]
        await run(pool, "a socket", "s.close(); del s", store)
        async with pool.open_session():  # its room
            assert pool.stats().named == len(cases) - 1
        assert await run(pool, "a generator", "next(g)", store) == 2


async def test_idle_executors_are_no_obstacle(pool: WorkerPool, store: str) -> None:
    code = (
        "import asyncio; from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\n"
        "threads = ThreadPoolExecutor(2); processes = ProcessPoolExecutor(1)\n"
        "[threads.submit(len, 'ab').result(), processes.submit(len, 'abc').result(), await asyncio.to_thread(len, 'a')]"
    )
    assert await run(pool, "a", code, store) == [2, 3, 1]
    await run(pool, "b", "1", store)
    assert await run(pool, "a", "threads.submit(len, 'abcd').result()", store) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "it has no store"),
        ({"store": "memory:"}, "this process's memory"),
        ({"recovery": "replay"}, "recovery='replay'"),
    ],
)
async def test_what_would_not_come_back_stays(
    options: dict[str, str], reason: str, tmp_path: Path, pool: WorkerPool
) -> None:
    if "recovery" in options:
        options = {**options, "store": str(tmp_path / "s.db")}
    async with pool.session("a", **options) as session:  # pyright: ignore[reportArgumentType]
        await session.execute("x = 1")
    with pytest.raises(pyrepl3.PoolTimeout, match=reason):
        await pool.acquire(0.05)
    assert [each.name for each in pool.stats().kept] == ["a"]
    store = options.get("store")
    assert await pool.close_session("a", store=store) is True
    assert await pool.close_session("a", store=store) is False
    await pool.release(await pool.acquire())


async def test_a_use_that_comes_while_it_is_being_passivated_finds_all_of_it(store: str) -> None:
    async with WorkerPool(1, QUICK, fork=False, max_sessions=1, idle_timeout=0.001) as pool:
        for number in range(12):
            async with pool.session("a", store=store) as session:
                await session.execute(f"seen = globals().get('seen', []) + [{number}]")
            await asyncio.sleep(0.01 * (number % 4))
        assert await run(pool, "a", "seen == list(range(12))", store) is True
        assert pool.stats().passivated > 0


async def test_a_use_while_it_is_being_saved_is_looked_at_too(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that ran after the checkpoint has made what none can hold."""
    looked, go_on = asyncio.Event(), asyncio.Event()
    look = SharedSession.why_not_passive

    async def slow(self: SharedSession) -> str:
        why = await look(self)
        looked.set()
        await go_on.wait()
        return why

    monkeypatch.setattr(SharedSession, "why_not_passive", slow)
    async with WorkerPool(1, QUICK, fork=False, max_sessions=1) as pool:
        await run(pool, "a", "x = 1", store)
        waiting = asyncio.ensure_future(pool.acquire())
        await looked.wait()
        assert await run(pool, "a", "import socket; s = socket.socket(); x", store) == 1
        go_on.set()
        await turns_until(lambda: bool(pool.stats().kept))
        assert await run(pool, "a", "s.fileno() > 0", store) is True
        waiting.cancel()


async def test_a_short_idle_timeout_does_not_make_the_loop_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Counter[str]()
    look = NamedSessions._on_idle

    def counted(self: NamedSessions, named: NamedSession) -> None:
        looks["looks"] += 1
        look(self, named)

    monkeypatch.setattr(NamedSessions, "_on_idle", counted)
    async with WorkerPool(1, QUICK, fork=False, idle_timeout=1e-6) as pool:
        await run(pool, "a", "x = 1", None)
        await turns_until(lambda: bool(pool.stats().kept))
        for _ in range(1000):
            await asyncio.sleep(0)
    assert looks["looks"] <= 1


async def test_a_death_costs_no_place_and_one_that_was_taken_over_is_opened_again(
    pool: WorkerPool, store: str
) -> None:
    async with pool.session("a", store=store) as session:
        await session.execute("x = 1")
        os.kill(session.worker.pid, signal.SIGKILL)
        assert (await session.execute("x")).value == 1
    async with pool.session("a", store=store) as session:
        os.kill(session.worker.pid, signal.SIGKILL)
    assert await run(pool, "b", "1", store) == 1
    assert await run(pool, "a", "x", store) == 1
    assert pool.stats().sessions == 1


async def test_two_pools_on_one_store_and_one_name(pool: WorkerPool, store: str) -> None:
    async with WorkerPool(1, QUICK, fork=False, max_sessions=2) as other:
        await run(pool, "a", "x = 1", store)
        with pytest.raises(pyrepl3.SessionBusy, match=f"'a' is owned by process {os.getpid()}"):
            await other.session("a", store=store)
        assert other.stats().sessions == 0
        await run(pool, "b", "1", store)  # so `a` is passive
        assert await run(other, "a", "x", store) == 1
        with pytest.raises(pyrepl3.SessionBusy):
            await pool.session("a", store=store)
    assert await run(pool, "a", "x", store) == 1


async def test_one_that_another_process_has_is_refused_and_costs_no_place(
    pool: WorkerPool, store: str
) -> None:
    program = (
        "import sys; from pyrepl3_client import sync\n"
        f"with sync.open_session('a', store={store!r}) as s: s.execute('x = 5'); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - it is there before anything else happens
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        with pytest.raises(pyrepl3.SessionBusy, match=f"process {process.pid}"):
            await pool.session("a", store=store)
        assert (pool.stats().sessions, pool.stats().named) == (0, 0)
        process.stdin.close()
        await asyncio.to_thread(process.wait)
    assert await run(pool, "a", "x", store) == 5


async def test_options_are_the_same_wherever_it_is_asked_for(pool: WorkerPool, store: str) -> None:
    config = WorkerConfig(close_grace=1.0, env={"TENANT": "a"})
    async with pool.session("a", store=store, config=config) as session:
        assert (await session.execute("import os; os.environ['TENANT']")).value == "a"
        with pytest.raises(ValueError, match="'a' is live with config="):
            await pool.session("a", store=store)
        with pytest.raises(ValueError, match="'a' is live with recovery='auto', and is asked for with"):
            await pool.session("a", store=store, config=config, recovery="checkpoint")
    with pytest.raises(ValueError, match=r"config\.confinement"):
        pool.session("a", store=store, config=WorkerConfig(confinement="none"))
    await run(pool, "b", "1", store)
    async with pool.session("a", store=store, config=config) as session:
        assert (await session.execute("os.environ['TENANT']")).value == "a"


async def test_the_files_of_a_session_are_where_its_code_begins(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "tenant"
    folder.mkdir()
    async with WorkerPool(1, QUICK, fork=False, max_sessions=2) as pool:
        other = WorkerConfig(close_grace=1.0, cwd=str(folder))
        for _ in range(2):
            async with pool.session("a", store=store, config=other) as session:
                await session.files.write("here.txt", b"here")
                assert (await session.execute("open('here.txt').read()")).value == "here"
            with pytest.raises(pyrepl3.SessionClosed, match="given back"):
                await session.files.read("here.txt")
            assert (folder / "here.txt").exists()
            await pool.close_session("a", store=store)
        gone = WorkerConfig(close_grace=1.0, cwd=str(tmp_path / "gone"))
        with pytest.raises(pyrepl3.SpawnError, match="gone' as its cwd"):
            await pool.open_session(config=gone)
        own = WorkerConfig(close_grace=1.0, cwd="own")
        async with pool.session("b", store=store, config=own) as session:
            await session.files.write("mine.txt", b"mine")
        async with pool.open_session(), pool.open_session():
            assert pool.stats().passivated == 1
        async with pool.session("b", store=store, config=own) as session:
            assert await session.files.read("mine.txt") == b"mine"


async def test_the_newest_uses_host_functions_count(pool: WorkerPool, store: str) -> None:
    async with pool.session("a", store=store, capabilities={"who": lambda: "one"}) as one:
        assert (await one.execute("who()")).value == "one"
        async with pool.session("a", store=store, capabilities={"who": lambda: "two"}):
            assert (await one.execute("who()")).value == "two"


async def test_one_that_is_dropped_is_given_back_with_a_warning(pool: WorkerPool, store: str) -> None:
    session = await pool.session("a", store=store)
    kept = [session]
    del session
    with pytest.warns(ResourceWarning, match="session 'a' of a pool was never given back"):
        kept.clear()
    await turns_until(lambda: pool.stats().held == 0)
    assert await run(pool, "b", "1", store) == 1


async def test_a_pool_that_is_drained_leaves_all_in_the_store(store: str) -> None:
    async with WorkerPool(1, QUICK, fork=False, max_sessions=3) as pool:
        await run(pool, "idle", "x = 1", store)
        held = await pool.session("held", store=store)
        draining = asyncio.create_task(pool.drain())
        await turns_until(lambda: pool.stats().named == 1)
        with pytest.raises(pyrepl3.PoolClosed, match="is drained"):
            await pool.session("held", store=store)
        assert (await held.execute("y = 2")).value == 2
        await held.close()
        assert await draining is True
    async with WorkerPool(1, QUICK, fork=False) as pool:
        assert await run(pool, "idle", "x", store) == 1
        assert await run(pool, "held", "y", store) == 2


async def test_a_pool_that_is_left_ends_what_is_in_use_and_it_goes_on_later(store: str) -> None:
    async with WorkerPool(1, QUICK, fork=False, max_sessions=2) as pool:
        session = await pool.session("a", store=store)
        await session.execute("x = 1")
        running = asyncio.ensure_future(session.execute("import asyncio; await asyncio.sleep(3600)"))
        waiting = await pool.session("b")
        opening = asyncio.ensure_future(pool.session("c", store=store))
        await turns_until(lambda: pool.stats().waiting == 1)
    with pytest.raises(pyrepl3.SessionClosed):
        await running
    with pytest.raises(pyrepl3.PoolClosed, match="the pool was closed"):
        await opening
    with pytest.raises(pyrepl3.SessionClosed):
        await waiting.execute("1")
    await waiting.close()
    await session.close()
    with pytest.raises(pyrepl3.PoolClosed, match="async with WorkerPool"):
        await pool.session("a", store=store)
    async with pool, pool.session("a", store=store) as session:  # once more
        await session.cancel()
        assert (await session.execute("x")).value == 1


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_at_random_no_cell_that_was_answered_is_lost(seed: int, store: str) -> None:
    """Cancels, deaths of workers, sessions ended for all, wrong releases, and idle times of a moment."""
    chance = random.Random(seed)
    names = [f"n{number}" for number in range(12)]
    sent, answered = Counter[str](), defaultdict[str, list[int]](list)

    async def use(pool: WorkerPool, name: str) -> None:
        kind = chance.random()
        if kind < 0.1:
            session = await pool.acquire()
            await pool.release(session)
            with pytest.raises(ValueError, match="not released yet"):
                pool.release(session)
            return
        if kind < 0.14:
            await pool.close_session(name, store=store)
            return
        async with pool.session(name, store=store) as session:
            sent[name] += 1
            number = sent[name]
            try:
                await session.execute(f"seen = globals().get('seen', []) + [{number}]")
            except pyrepl3.SessionClosed:
                return  # by `close_session`, for all
            answered[name].append(number)
            if kind < 0.3:
                os.kill(session.worker.pid, signal.SIGKILL)
            elif kind < 0.4:
                with suppress(pyrepl3.SessionClosed):
                    session.start("import asyncio; await asyncio.sleep(0.05)")

    async def client(pool: WorkerPool) -> None:
        for _ in range(40):
            task = asyncio.ensure_future(use(pool, chance.choice(names)))
            if chance.random() < 0.25:
                await asyncio.wait([task], timeout=chance.random() * 0.2)
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None

    async with WorkerPool(2, QUICK, max_sessions=4, acquire_timeout=None, idle_timeout=0.05) as pool:
        await asyncio.gather(*(client(pool) for _ in range(10)))
        for name in names:
            async with pool.session(name, store=store) as session:
                seen = (await session.execute("globals().get('seen', [])")).value
            assert set(answered[name]) <= set(seen), name
            assert len(set(seen)) == len(seen), name
        assert await pool.drain() is True
        assert (pool.stats().sessions, pool.stats().waiting, pool.stats().named) == (0, 0, 0)
