"""A service: many sessions by name on few live workers, under a Zipf load.

Some names are asked for all the time and stay live; most are asked for rarely, and are in the store by then.
What is timed is the return of one of those: from asking for the session until a cell of it has answered, the
wait for room included, with a quarter as many clients as there may be sessions. At the end every session must
have counted each request that it was given.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pyrepl3_client as pyrepl3
from benchmarks.measure import Opener, Sampler, Subject, verify
from benchmarks.scale import Scale
from benchmarks.stores import open_store

_EXPONENT = 1.1
_CELL = "n += 1\nn"
_BEGIN = "n = 0; rows = [{'id': i, 'name': f'row {i}'} for i in range(1000)]"


class Load:
    """Clients that use sessions by name of a pool, and how long each use took."""

    def __init__(self, pool: pyrepl3.WorkerPool, store: str, names: int) -> None:
        """Choose among so many names; those of lower numbers are chosen more often."""
        self._pool = pool
        self._store = store
        self._names = [f"user-{number}" for number in range(names)]
        self._weights = [1 / (rank + 1) ** _EXPONENT for rank in range(names)]
        self._chance = random.Random(1)  # noqa: S311 - a load that is the same each time
        self._asked: Counter[str] = Counter()
        self._workers: dict[str, int] = {}
        """The worker that each session was last seen in."""
        self._heard = asyncio.Event()
        self._stopping = False
        self.returns: list[float] = []
        """Seconds of each use that a session came back for."""
        self.live: list[float] = []
        """Seconds of each use of one that was live."""

    async def begin(self) -> None:
        """Make all sessions."""
        for name in self._names:
            async with self._pool.session(name, store=self._store) as session:
                await session.execute(_BEGIN)
                self._workers[name] = session.worker.pid

    async def client(self) -> None:
        """Use one session after the other."""
        while not self._stopping:
            (name,) = self._chance.choices(self._names, self._weights)
            self._asked[name] += 1
            began = time.perf_counter()
            async with self._pool.session(name, store=self._store) as session:
                pid = session.worker.pid
                came_back = self._workers[name] != pid
                self._workers[name] = pid
                await session.execute(_CELL)
            (self.returns if came_back else self.live).append(time.perf_counter() - began)
            self._heard.set()

    async def next_of(self, figures: list[float], clients: "list[asyncio.Task[None]]") -> float:
        """Return the next figure of a list; what a client raises is raised here."""
        while not figures:
            self._heard.clear()
            waits = [*clients, asyncio.ensure_future(self._heard.wait())]
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            waits[-1].cancel()
            for client in done.intersection(clients):
                client.result()
        return figures.pop(0)

    async def stop(self, clients: "list[asyncio.Task[None]]") -> None:
        """Let each client end its use, and look whether each session has counted what was asked of it."""
        self._stopping = True
        await asyncio.gather(*clients)
        for name in self._names:
            async with self._pool.session(name, store=self._store) as session:
                counted = (await session.execute("n, len(rows)")).value
            verify(counted, [self._asked[name], 1000])


def _ours(*, live: bool) -> Opener:
    @asynccontextmanager
    async def opened(scale: Scale) -> AsyncGenerator[Sampler]:
        with open_store("SQLite") as store:
            async with pyrepl3.WorkerPool(2, max_sessions=scale.live, acquire_timeout=None) as pool:
                assert store is not None
                load = Load(pool, store, scale.names)
                await load.begin()
                clients: list[asyncio.Task[None]] = []

                async def sample() -> float:
                    if not clients:
                        clients.extend(
                            asyncio.create_task(load.client()) for _ in range(max(2, scale.live // 4))
                        )
                    return await load.next_of(load.live if live else load.returns, clients)

                yield sample
                await load.stop(clients)
                verify(pool.stats().kept, ())

    return opened


SUBJECTS = (
    Subject(
        "pool-return",
        "return of a passivated session: {scale.names} by name on {scale.live} live workers, Zipf load",
        "s",
        lambda scale: scale.returns,
        _ours(live=False),
    ),
    Subject(
        "pool-live",
        "use of a live session under the same load",
        "s",
        lambda scale: scale.returns,
        _ours(live=True),
    ),
)
