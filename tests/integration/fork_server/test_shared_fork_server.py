"""Sessions that lose their workers: from the third on, workers are forked from a shared fork server."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch import shared_fork_server
from pyrepl3_client._launch.shared_fork_server import SharedForkServer
from pyrepl3_client._session.open import open_with
from pyrepl3_client._session.options import Durability
from tests.helpers.real_sessions import quick, value, when_back

pytestmark = pytest.mark.anyio
SEED = "hash('a word')"
"""With a random seed, the same in all processes that were forked from one, and in no others."""


def forks(launcher: SharedForkServer) -> bool:
    return launcher.fork_server is not None


async def test_the_next_workers_are_forked_and_sessions_share_a_fork_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_fork_server, "_START_DELAY", 0.0)
    config = replace(quick(), env={"PYTHONHASHSEED": "random"})
    first, second = SharedForkServer(), SharedForkServer()
    try:
        async with (
            open_with(first.launch, None, config, None) as one,
            open_with(second.launch, None, config, None) as two,
        ):
            await value(one, "kept = 5")
            seeds = [await value(one, SEED)]
            assert not forks(first)
            os.kill(one.worker.pid, signal.SIGKILL)
            seeds.append(await value(one, SEED))
            assert first.fork_server is not None
            with anyio.fail_after(20):
                await first.fork_server.wait_started()
            for _ in range(2):
                os.kill(one.worker.pid, signal.SIGKILL)
                seeds.append(await value(one, SEED))
            await value(two, "kept = 6")
            os.kill(two.worker.pid, signal.SIGKILL)
            seeds.append(await value(two, SEED))
            assert second.fork_server is first.fork_server
            assert first.fork_server.reason is None
            assert await value(one, "kept") == 5
            assert await value(two, "kept") == 6
            first.close()
            os.kill(two.worker.pid, signal.SIGKILL)
            seeds.append(await value(two, SEED))
        assert len(set(seeds)) == 3
        assert len(set(seeds[2:])) == 1
    finally:
        first.close()
        second.close()


LOADED = "import sys; sorted((sys.modules.keys() & sys.stdlib_module_names) - set(sys.builtin_module_names))"
OWN = (
    "import os, pickle, platform, shutil; [pickle.mine, platform.mine, shutil.copy is not None, os.getpid()]"
)


@pytest.mark.parametrize("confinement", ["none", "limits"])
async def test_code_imports_the_same_in_a_forked_worker(
    confinement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a fork server has imported for the worker stands in the way of no file of the code's."""
    monkeypatch.setattr(shared_fork_server, "_START_DELAY", 0.0)
    launcher = SharedForkServer()
    config = replace(quick(), confinement=confinement, cwd=str(tmp_path))
    try:
        async with open_with(launcher.launch, None, config, None) as session:
            spawned = await value(session, LOADED)
            await session.restart()
            assert launcher.fork_server is not None
            with anyio.fail_after(20):
                await launcher.fork_server.wait_started()
            for name in ("pickle", "platform"):
                (tmp_path / f"{name}.py").write_text("mine = 1")
            await session.restart()
            assert await value(session, LOADED) == spawned
            assert (await value(session, OWN))[:3] == [1, 1, True]
            assert (await session.checkpoint()).unsaved == []
            assert (await value(session, OWN))[:3] == [1, 1, True]
    finally:
        launcher.close()


@pytest.mark.parametrize("config", [replace(quick(), warm=("json",)), replace(quick(), confinement="strict")])
async def test_what_may_not_be_forked_never_is(
    config: pyrepl3.WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_fork_server, "_START_DELAY", 0.0)
    launcher = SharedForkServer()
    back = asyncio.Queue[pyrepl3.Recovery]()
    durability = Durability(on_recovery=when_back(back.put_nowait))
    async with open_with(launcher.launch, None, config, None, durability=durability) as session:
        for _ in range(2):
            # The pid is that of the outermost process: the one within may answer once more.
            os.kill(session.worker.pid, signal.SIGKILL)
            await back.get()
            assert await value(session, "1 + 1") == 2
        assert not forks(launcher)
    launcher.close()


async def test_a_session_that_ends_before_its_fork_server_starts_leaves_none() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, "1 + 1") == 2


@pytest.mark.parametrize("stored", [False, True])
async def test_a_pool_provides_the_next_worker_too(stored: bool, tmp_path: os.PathLike[str]) -> None:
    store = os.path.join(tmp_path, "state.db") if stored else None
    deaths: list[pyrepl3.Recovery] = []
    async with (
        pyrepl3.WorkerPool(2, quick()) as pool,
        pool.open_session("kept", store=store, on_recovery=when_back(deaths.append)) as session,
    ):
        assert pool.spawn_reason is None
        await value(session, "kept = 5")
        for _ in range(3):
            os.kill(session.worker.pid, signal.SIGKILL)
            assert await value(session, "kept") == 5
        assert pool.spawn_reason is None
    assert len(deaths) == 3


class Counted:
    """In a `ForkServer`'s place; counts how many live."""

    living = 0

    def __init__(self, config: pyrepl3.WorkerConfig) -> None:
        self.config = config

    def start(self) -> None:
        Counted.living += 1

    def close(self) -> None:
        Counted.living -= 1

    def launch(self, config: pyrepl3.WorkerConfig) -> None:
        launch_nothing(config)


def launch_nothing(config: pyrepl3.WorkerConfig) -> None:
    """Stand in for a `Launch`."""


async def test_a_fork_server_found_before_the_own_one_was_due_is_acquired_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_fork_server, "ForkServer", Counted)
    monkeypatch.setattr(shared_fork_server, "spawn", launch_nothing)
    config = quick()
    first, second = SharedForkServer(), SharedForkServer()
    loop = asyncio.get_running_loop()
    for launcher, delay in ((first, 0.0), (second, 0.01)):
        monkeypatch.setattr(shared_fork_server, "_START_DELAY", delay)
        for _ in range(2):
            launcher.launch(config)
    first_was_due, both_were_due = asyncio.Event(), asyncio.Event()
    loop.call_later(0.0, first_was_due.set)
    await first_was_due.wait()
    second.launch(config)
    loop.call_later(0.01, both_were_due.set)
    await both_were_due.wait()
    assert second.fork_server is first.fork_server
    first.close()
    assert Counted.living == 1
    second.close()
    assert Counted.living == 0
