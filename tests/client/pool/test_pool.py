"""The pool: its decisions as pure functions, and its workers as real ones."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SessionState, WorkerConfig, WorkerPool
from pyrepl3_client._launch.idle_worker import IdleWorker
from pyrepl3_client._launch.worker import Worker
from pyrepl3_client._pool import idle_workers
from pyrepl3_client._pool.idle_workers import choose_idle_worker, seconds_until_refill
from pyrepl3_client.testing import ScriptedWorker
from tests.client.launch.test_spawn import child
from tests.helpers.scripted_sessions import ONE, script_basics, turns_until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("idle", "size", "failures", "seconds"),
    [
        (2, 2, 0, None),
        (3, 2, 5, None),
        (1, 2, 0, 0.0),
        (0, 1, 1, 0.1),
        (0, 1, 2, 0.2),
        (0, 1, 5, 1.6),
        (0, 1, 1000, 10.0),
    ],
)
def test_when_to_refill(idle: int, size: int, failures: int, seconds: float | None) -> None:
    assert seconds_until_refill(idle, size, failures) == seconds


class Starter:
    """Starts scripted workers, and remembers them."""

    def __init__(self) -> None:
        self.workers: list[ScriptedWorker] = []
        self.failing = False

    def __call__(self, config: WorkerConfig) -> Worker:
        if self.failing:
            raise pyrepl3.SpawnError("no more")
        worker = ScriptedWorker()
        script_basics(worker)
        self.workers.append(worker)
        return worker.launch(config)


async def test_the_oldest_warm_one_is_chosen_and_a_dead_one_never() -> None:
    starter = Starter()
    idle = [IdleWorker(starter(WorkerConfig()), lambda: None, lambda spare: None) for _ in range(3)]
    assert choose_idle_worker([]) is None
    assert choose_idle_worker(idle) is idle[0]
    idle[1].warm = idle[2].warm = True
    assert choose_idle_worker(idle) is idle[1]
    starter.workers[1].process.exit(1)
    assert choose_idle_worker(idle) is idle[2]
    for spare in idle:
        spare.warm = False
        spare.kill()
        await spare.ended
    assert choose_idle_worker(idle) is None


async def test_all_are_warm_on_entry_and_one_is_taken_for_good() -> None:
    starter = Starter()
    async with WorkerPool(2, launch=starter) as pool:
        assert pool.waiting == 2
        async with pool.open_session("s") as session:
            assert session.session_id == "s"
            assert (await session.execute(ONE)).value == 2
            await turns_until(lambda: pool.waiting == 2)
            assert len(starter.workers) == 3
        assert starter.workers[0].process.ended
        assert not starter.workers[1].process.ended
    assert all(worker.process.ended for worker in starter.workers)


async def test_without_a_spare_a_session_starts_a_worker_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_workers, "_REFILL_DELAY", 60.0)  # however long the second session takes to open
    starter = Starter()
    async with (
        WorkerPool(1, max_sessions=2, launch=starter) as pool,
        pool.open_session() as first,
        pool.open_session() as second,
    ):
        assert (await first.execute(ONE)).value == (await second.execute(ONE)).value == 2
        assert len(starter.workers) == 2


async def test_a_spare_that_dies_is_replaced() -> None:
    starter = Starter()
    async with WorkerPool(1, launch=starter) as pool:
        starter.workers[0].process.exit(1)
        await turns_until(lambda: len(starter.workers) == 2 and pool.waiting == 1)
        async with pool.open_session() as session:
            assert (await session.execute(ONE)).value == 2


async def test_a_spare_that_has_just_died_is_not_given_away() -> None:
    starter = Starter()
    async with WorkerPool(1, launch=starter) as pool:
        starter.workers[0].process.exit(1)
        async with pool.open_session() as session:  # before the loop has heard of the death
            assert (await session.execute(ONE)).value == 2


async def test_no_more_workers_is_told_to_who_asks_and_mends_itself() -> None:
    starter = Starter()
    async with WorkerPool(1, launch=starter) as pool:
        starter.failing = True
        starter.workers[0].process.exit(1)
        with pytest.raises(pyrepl3.SpawnError, match="no more"):
            async with pool.open_session():
                pass
        starter.failing = False
        await turns_until(lambda: pool.waiting == 1)


async def test_a_restarted_session_takes_another_spare() -> None:
    starter = Starter()
    async with WorkerPool(2, launch=starter) as pool, pool.open_session() as session:
        await session.restart()
        assert session.worker.incarnation == 2
        assert not starter.workers[1].process.ended
        assert (await session.execute(ONE)).value == 2
        assert starter.workers[1].received


async def test_a_closed_pool_gives_no_sessions() -> None:
    pool = WorkerPool(1, launch=Starter())
    with pytest.raises(pyrepl3.PyRepl3Error, match="async with WorkerPool"):
        async with pool.open_session():
            pass


async def test_a_pool_can_be_entered_again() -> None:
    pool = WorkerPool(1, launch=Starter())
    for _ in range(2):
        async with pool, pool.open_session() as session:
            assert (await session.execute(ONE)).value == 2


@pytest.mark.parametrize("size", [0, -1])
def test_a_pool_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        WorkerPool(size)


def test_modules_of_both_places_are_warmed() -> None:
    assert WorkerPool(1, WorkerConfig(warm=("json",)), warm=["csv"]).config.warm == ("json", "csv")


# --- with real workers --------------------------------------------------------------------------------


async def test_a_spare_has_imported_what_it_should() -> None:
    async with WorkerPool(1, warm=("colorsys",)) as pool:
        assert pool.waiting == 1
        async with pool.open_session(capabilities={"f": lambda: "host"}) as session:
            loaded = await session.execute("import sys\n['colorsys' in sys.modules, f()]")
            assert loaded.value == [True, "host"]
            big = await session.execute("len(%r)" % ("x" * 200_000))  # through the pipe that was small
            assert big.value == 200_000


async def test_a_worker_that_cannot_start_fails_the_entry_with_its_words() -> None:
    with pytest.raises(pyrepl3.SpawnError, match="no_such_module") as error:
        async with WorkerPool(2, warm=("no_such_module",)):
            pass
    assert error.value.exit_code == 1


async def test_an_end_is_not_taken_for_warmth() -> None:
    """A pipe that nobody reads from any more counts as writable too."""
    worker = ScriptedWorker()
    deaths: list[IdleWorker] = []
    spare = IdleWorker(worker.launch(WorkerConfig()), lambda: None, deaths.append)
    worker.process.exit(1)
    await spare.ended
    assert not spare.warm
    assert deaths == [spare]


async def test_a_worker_that_is_never_warm_fails_the_entry(tmp_path: Path) -> None:
    config = WorkerConfig(python=child(tmp_path, "time.sleep(600)"), spawn_timeout=0.3)
    with pytest.raises(pyrepl3.SpawnError, match=r"not warm within 0.3 seconds"):
        async with WorkerPool(2, config):
            pass


async def test_a_cancelled_entry_leaves_nothing(tmp_path: Path) -> None:
    config = WorkerConfig(python=child(tmp_path, "time.sleep(600)"))
    entering = asyncio.create_task(WorkerPool(2, config).__aenter__())
    await asyncio.sleep(0.05)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering


async def test_a_real_spare_that_is_killed_is_replaced() -> None:
    async with WorkerPool(1) as pool:
        os.kill(pool._workers.idle[0].worker.pid, signal.SIGKILL)  # pyright: ignore[reportPrivateUsage]
        async with pool.open_session() as session:
            assert (await session.execute("1 + 1")).value == 2
            assert session.state is SessionState.READY


# --- the bound ----------------------------------------------------------------------------------------


async def test_no_more_sessions_than_there_may_be_and_the_next_waits() -> None:
    async with WorkerPool(1, max_sessions=2, launch=Starter()) as pool:
        one, two = await pool.acquire(), await pool.acquire()
        third = asyncio.create_task(pool.acquire())
        await turns_until(lambda: pool.stats().waiting == 1)
        assert not third.done()
        assert (pool.stats().sessions, pool.stats().max_sessions) == (2, 2)
        await pool.release(one)
        await pool.release(await third)
        await pool.release(two)
        assert (pool.stats().sessions, pool.stats().opened) == (0, 3)


async def test_by_default_as_many_as_its_size_and_who_waits_too_long_is_told() -> None:
    async with WorkerPool(1, acquire_timeout=0.01, launch=Starter()) as pool, pool.open_session():
        for ask in (pool.open_session, pool.acquire):
            with pytest.raises(pyrepl3.PoolTimeout, match=r"within 0\.01 s: all 1 .*max_sessions=1"):
                await ask()
        with pytest.raises(TimeoutError):
            await pool.acquire(0.001)
        assert pool.stats().timeouts == 3


async def test_a_session_that_is_closed_or_could_not_be_opened_gives_its_place_back() -> None:
    starter = Starter()
    async with WorkerPool(1, launch=starter) as pool:
        session = await pool.open_session()
        await session.close()
        starter.failing = True
        starter.workers[-1].process.exit(1)
        with pytest.raises(pyrepl3.SpawnError):
            await pool.acquire()
        starter.failing = False
        async with pool.open_session() as session:
            session.execute  # noqa: B018 - it is there
        await pool.release(session)  # it was closed by itself
        assert pool.stats().sessions == 0


async def test_what_is_no_session_of_the_pool_or_was_released_is_refused() -> None:
    async with (
        WorkerPool(1, launch=Starter()) as pool,
        WorkerPool(1, launch=Starter()) as other,
        other.open_session() as foreign,
    ):
        session = await pool.acquire()
        with pytest.raises(ValueError, match="must be one of this pool's"):
            pool.release(foreign)
        pool.release(session)  # not awaited: it happens all the same
        with pytest.raises(ValueError, match="not released yet"):
            pool.release(session)
        assert (await foreign.execute(ONE)).value == 2
        await pool.release(await pool.acquire())


async def test_a_pools_end_is_told_to_who_waits_for_a_session() -> None:
    async with WorkerPool(1, launch=Starter()) as pool:
        session = await pool.acquire()
        waiters = [asyncio.ensure_future(pool.open_session()) for _ in range(3)]
        await turns_until(lambda: pool.stats().waiting == 3)
    for waiter in waiters:
        with pytest.raises(pyrepl3.PoolClosed, match="the pool was closed"):
            await waiter
    assert (await session.execute(ONE)).value == 2  # it is its user's
    await session.close()


async def test_a_pool_is_drained() -> None:
    async with WorkerPool(1, launch=Starter()) as pool:
        session = await pool.acquire()
        waiter = asyncio.ensure_future(pool.acquire())
        await turns_until(lambda: pool.stats().waiting == 1)
        draining = asyncio.create_task(pool.drain())
        with pytest.raises(pyrepl3.PoolClosed, match="is drained"):
            await waiter
        with pytest.raises(pyrepl3.PoolClosed, match="is drained"):
            await pool.open_session()
        assert await pool.drain(0.001) is False
        await pool.release(session)
        assert await draining is True


async def test_a_herd_that_is_cancelled_at_random_costs_no_place() -> None:
    chance, starter = random.Random(1), Starter()
    async with WorkerPool(2, max_sessions=3, launch=starter) as pool:

        async def use() -> None:
            async with pool.open_session() as session:
                assert pool.stats().sessions <= 3
                await session.execute(ONE)

        tasks = [asyncio.ensure_future(use()) for _ in range(200)]
        while not all(task.done() for task in tasks):
            for _ in range(5):
                chance.choice(tasks).cancel()
            await asyncio.sleep(0.001)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert (pool.stats().sessions, pool.stats().waiting) == (0, 0)
        async with pool.open_session() as one, pool.open_session() as two, pool.open_session():
            assert (await one.execute(ONE)).value == (await two.execute(ONE)).value == 2


async def test_a_pool_that_is_open_is_not_entered_again() -> None:
    starter = Starter()
    async with WorkerPool(1, launch=starter) as pool:
        with pytest.raises(pyrepl3.PyRepl3Error, match="the pool is open already"):
            await pool.__aenter__()
        assert len(starter.workers) == 1
        async with pool.open_session() as session:
            assert (await session.execute(ONE)).value == 2


async def test_what_was_released_has_ended_when_the_pool_was_left() -> None:
    async with WorkerPool(1, launch=Starter()) as pool:
        session = await pool.acquire()
        pool.release(session)
        assert session.state is not SessionState.CLOSED
    assert session.state is SessionState.CLOSED
