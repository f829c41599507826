"""The order of sets of texts: the same in every worker, so that code run again asks for the same."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._launch.fork_server import ForkServer
from tests.helpers.fork_servers import opened, ready
from tests.helpers.real_sessions import quick, value

pytestmark = pytest.mark.anyio

SETS: list[set[str | bytes]] = [
    {"x", "y", "zz", "w", "qq"},
    {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"},
    {f"item {number}" for number in range(50)},
    {"é", "ü", "ß", "ñ", "日本", "語"},
    {b"bytes", b"too", b"have", b"an", b"order"},
]
DIES_ONCE = """
import ctypes, os
answers = [hc(each) for each in {sets}]
if not os.path.exists({flag!r}):
    open({flag!r}, 'w').close()
    ctypes.CDLL(None).kill(os.getpid(), 9)  # nobody knows who has sent it
answers
"""
ORDER = f"[list(each) for each in {SETS[:4]!r}]"
CHILD = "import subprocess, sys\nsubprocess.check_output([sys.executable, '-c', {code!r}], text=True)"
STRICT = replace(quick(), confinement="strict", confinement_required=False)


async def order(config: pyrepl3.WorkerConfig) -> list[list[str]]:
    """Return the order of sets in a new worker."""
    async with pyrepl3.open_session(config=config) as session:
        return await value(session, ORDER)


@pytest.mark.parametrize("store", [None, "memory:", "state.db"])
async def test_a_cell_that_is_run_again_sends_its_sets_in_the_same_order(
    store: str | None, tmp_path: Path
) -> None:
    asked: list[list[str | bytes]] = []

    def hc(items: list[str | bytes]) -> int:
        asked.append(items)
        return len(items)

    if store == "state.db":
        store = str(tmp_path / store)
    async with pyrepl3.open_session(config=quick(), store=store, capabilities={"hc": hc}) as session:
        result = await session.execute(DIES_ONCE.format(sets=SETS, flag=str(tmp_path / "flag")))
    assert (result.attempts, result.value) == (2, [len(each) for each in SETS])
    assert [set(items) for items in asked] == SETS


@pytest.mark.parametrize("level", ["none", "limits", "strict"])
async def test_every_worker_has_the_order_of_the_others(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {"none": replace(quick(), confinement="none"), "limits": quick(), "strict": STRICT}
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    first = await order(quick())
    # The parent that opens a session again may have been started with another seed.
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    assert await order(levels[level]) == first


@pytest.mark.parametrize("fork", [True, False])
async def test_workers_of_a_pool_have_the_order_of_all_others(fork: bool) -> None:
    async with pyrepl3.WorkerPool(1, quick(), fork=fork) as pool, pool.open_session() as session:
        assert await value(session, ORDER) == await order(quick())


async def test_forked_workers_have_the_order_of_spawned_ones() -> None:
    async with ForkServer(quick()) as fork_server:
        await ready(fork_server)
        async with opened(fork_server) as session:
            assert fork_server.reason is None
            assert await value(session, ORDER) == await order(quick())


async def test_a_seed_of_the_configuration_is_used() -> None:
    config = replace(quick(), env={"PYTHONHASHSEED": "12345"})
    first, second = await order(config), await order(replace(config, confinement="none"))
    assert first == second != await order(quick())


async def test_child_processes_of_the_code_have_the_same_order() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        code = f"print({ORDER})"
        assert await value(session, CHILD.format(code=code)) == f"{await value(session, ORDER)}\n"
        os.kill(session.worker.pid, signal.SIGKILL)
        assert await value(session, CHILD.format(code=code)) == f"{await value(session, ORDER)}\n"
