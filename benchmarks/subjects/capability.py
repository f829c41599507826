"""Code that calls back into the program that runs it, many times in one cell."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Goal, Opener, Peer, Sampler, Subject, verify
from benchmarks.peers import monty
from benchmarks.scale import Scale
from benchmarks.stores import Kind, open_store


async def add_one(number: int) -> int:
    """The host function: as little work as there can be."""
    return number + 1


def _plain_add_one(number: int) -> int:
    return number + 1


def _code(scale: Scale, call: str) -> str:
    return f"total = 0\nfor i in range({scale.trips}):\n    total = {call}\ntotal"


def _ours(call: str, kind: Kind = "plain memory") -> Opener:
    function = add_one if "await" in call else pyrepl3.capability(add_one, awaitable=False)

    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        with open_store(kind) as store:
            async with pyrepl3.open_session(store=store, capabilities={"add_one": function}) as session:

                async def sample() -> float:
                    began = time.perf_counter()
                    result = await session.execute(_code(scale, call))
                    seconds = time.perf_counter() - began
                    verify(result.value, scale.trips)
                    return seconds / scale.trips

                yield sample

    return opened


def _monty(call: str, function: Callable[..., object]) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        async with monty.open_pool() as pool, pool.checkout(limits=monty.LIMITS) as session:

            async def sample() -> float:
                began = time.perf_counter()
                total = await session.feed_run(_code(scale, call), external_lookup={"add_one": function})
                seconds = time.perf_counter() - began
                verify(total, scale.trips)
                return seconds / scale.trips

            yield sample

    return opened


SUBJECTS = (
    Subject(
        "capability",
        "awaited host call",
        "s",
        lambda scale: scale.rounds,
        _ours("await add_one(total)"),
        (Peer("pydantic-monty", _monty("await add_one(total)", add_one), Goal(better=2)),),
    ),
    # Called without `await`: the worker's code blocks meanwhile. Monty wants a plain function for
    # that; ours takes the coroutine function (a plain one would cost a thread's hop).
    Subject(
        "capability-sync",
        "blocking host call",
        "s",
        lambda scale: scale.rounds,
        _ours("add_one(total)"),
        (Peer("pydantic-monty", _monty("add_one(total)", _plain_add_one), Goal(better=2)),),
    ),
    # No call goes unrecorded: in plain memory its intent and its outcome are in a dict, in a store each is
    # a transaction, on record before the function is called and before the code sees what it gave.
    Subject(
        "capability-durable",
        "awaited host call, recorded in SQLite",
        "s",
        lambda scale: scale.rounds,
        _ours("await add_one(total)", "SQLite"),
        (
            Peer("itself, recorded in memory:", _ours("await add_one(total)", "memory:")),
            Peer("itself, recorded in plain memory", _ours("await add_one(total)")),
        ),
    ),
)
