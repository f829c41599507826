"""What checkpoints cost: those that are asked for, and cells for those that are taken unasked.

Each namespace is saved once before anything is timed; what is timed is what a session pays from then on,
with a small change each time.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyrepl3_client as pyrepl3
from benchmarks.measure import Opener, Peer, Sampler, Subject, verify
from benchmarks.peers import NotInstalledError
from benchmarks.scale import Scale
from benchmarks.stores import Kind, open_store


@dataclass(frozen=True, slots=True)
class _Namespace:
    """What a session holds, and the code that makes it."""

    name: str
    what: str
    code: Callable[[Scale], str]


_ROWS = _Namespace(
    "1mb",
    "1 MB of dicts",
    lambda scale: (
        f"rows = [{{'id': i, 'name': f'row {{i}}', 'share': i / 7}} for i in range({12_000 // scale.shrink})]"
    ),
)
_ARRAY = _Namespace(
    "100mb",
    "a 100 MB array",
    lambda scale: f"import numpy\narray = numpy.random.default_rng(1).random({12_500_000 // scale.shrink})",
)
_OBJECTS = _Namespace(
    "objects",
    "10,000 small objects",
    lambda scale: (
        "class Point:\n"
        "    def __init__(self, x, y):\n"
        "        self.x, self.y = x, y\n"
        f"points = [Point(i, i / 7) for i in range({10_000 // scale.shrink})]"
    ),
)
_NOTHING = _Namespace("nothing", "nothing", lambda scale: "")


@asynccontextmanager
async def _filled(
    kind: Kind, namespace: _Namespace, scale: Scale, recovery: pyrepl3.RecoveryPolicy
) -> AsyncGenerator[pyrepl3.Session]:
    with open_store(kind) as store:
        async with pyrepl3.open_session("measured", store=store, recovery=recovery) as session:
            result = await session.execute(namespace.code(scale), check=False, result_mode="none")
            if result.error is not None and result.error.type == "ModuleNotFoundError":
                raise NotInstalledError(f"not installed in the worker: {result.error.message}")
            verify(result.error, None)
            await session.checkpoint("measured")
            yield session


def _asked_for(kind: Kind, namespace: _Namespace) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        # Under this policy none is taken unasked, which would come in between.
        async with _filled(kind, namespace, scale, "replay") as session:
            numbers = itertools.count()

            async def sample() -> float:
                await session.execute(f"change = {next(numbers)}")
                began = time.perf_counter()
                saved = await session.checkpoint("measured")
                seconds = time.perf_counter() - began
                verify(saved.unsaved, [])
                return seconds

            yield sample

    return opened


def _among_automatic(namespace: _Namespace, recovery: pyrepl3.RecoveryPolicy) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        async with _filled("SQLite", namespace, scale, recovery) as session:
            numbers = itertools.count()

            async def sample() -> float:
                # A cell leads to a checkpoint, and the next one comes before, during or after that: it
                # waits for one that is being taken.
                await session.execute(f"change = {next(numbers)}")
                await asyncio.sleep(random.uniform(0, scale.pause))  # noqa: S311 - no secret
                began = time.perf_counter()
                await session.execute(f"change = {next(numbers)}")
                return time.perf_counter() - began

            yield sample

    return opened


def _save(namespace: _Namespace) -> Subject:
    return Subject(
        f"checkpoint-{namespace.name}",
        f"checkpoint in SQLite after a small change beside {namespace.what}",
        "s",
        lambda scale: scale.saves,
        _asked_for("SQLite", namespace),
        (
            Peer("the same in plain memory", _asked_for("plain memory", namespace)),
            Peer("the same beside nothing", _asked_for("SQLite", _NOTHING)),
        ),
    )


def _cell(namespace: _Namespace) -> Subject:
    return Subject(
        f"checkpoint-cell-{namespace.name}",
        f"a cell within {{scale.pause:g}} s of another, automatic checkpoints, beside {namespace.what}",
        "s",
        lambda scale: scale.saves,
        _among_automatic(namespace, "auto"),
        (Peer("without automatic checkpoints", _among_automatic(namespace, "replay")),),
    )


SUBJECTS = (
    *(_save(namespace) for namespace in (_ROWS, _ARRAY, _OBJECTS)),
    *(_cell(namespace) for namespace in (_ROWS, _ARRAY, _OBJECTS)),
)
