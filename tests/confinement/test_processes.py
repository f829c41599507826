"""Processes with the session's own functions, at the strict level: they work, or are refused in words."""

from collections.abc import AsyncIterator

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import ResourceLimits
from tests.confinement.sessions import is_working, run, strict_config, value

pytestmark = pytest.mark.anyio

CODE = """
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
K = 3
def g(x): return x * K
def put(q): q.put(g(5))
def count(v):
    with v.get_lock(): v.value += 1
def used(ctx):
    with ctx.Pool(1) as p: found = p.map(g, range(3))
    with ProcessPoolExecutor(1, mp_context=ctx) as e: found += e.map(g, range(3))
    q, v = ctx.Queue(), ctx.Value('i', 0)
    children = [ctx.Process(target=put, args=(q,)), ctx.Process(target=count, args=(v,))]
    for c in children: c.start()
    for c in children: c.join()
    return [*found, q.get(), v.value]
"""


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[pyrepl3.Session]:
    async with pyrepl3.open_session(config=strict_config()) as session:
        await session.execute(CODE)
        yield session


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_processes_have_the_sessions_functions(session: pyrepl3.Session, method: str) -> None:
    assert await value(session, f"used(mp.get_context({method!r}))") == [0, 3, 6, 0, 3, 6, 15, 1]


async def test_more_processes_than_allowed_are_an_error() -> None:
    """The limit is 300 where the worker's user is uid 0 outside."""
    limits = ResourceLimits(max_processes=8)
    async with pyrepl3.open_session(config=strict_config(limits=limits), recovery="none") as session:
        await session.execute(CODE)
        result = await run(session, "with mp.get_context('fork').Pool(310) as p: p.map(g, range(3))")
        assert result.error is not None
        assert result.error.type == "BlockingIOError"
        assert "Resource temporarily unavailable" in result.error.message
        assert await is_working(session)
