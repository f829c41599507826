"""Resonate's LocalConnection, its store in memory, under a durable function that does as ours does.

Promise-first: it creates a promise, hands its id over, and awaits it. What waits for the result resolves
that promise at once, with no worker in between: a round trip less than ours has.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from resonate.connections import LocalConnection
from resonate.context import Context
from resonate.heartbeat import NoopHeartbeat
from resonate.resonate import Resonate
from resonate.retry import Never
from resonate.types import Value

_DAY = timedelta(days=1)


class _Arrivals:
    """Promises whose functions have come for the first time. Resonate runs a function again to resume it."""

    def __init__(self) -> None:
        self._expected: dict[str, asyncio.Future[str]] = {}

    def expect(self, execution_id: str) -> asyncio.Future[str]:
        arrival = self._expected[execution_id] = asyncio.get_running_loop().create_future()
        return arrival

    def arrived(self, execution_id: str, promise_id: str) -> None:
        arrival = self._expected.pop(execution_id, None)
        if arrival is not None:
            arrival.set_result(promise_id)


async def _promise_first(ctx: Context, execution_id: str) -> int:
    promise = ctx.promise(_DAY)
    ctx.get_dependency(_Arrivals).arrived(execution_id, await promise.id())
    settled: int = await promise
    return settled


class LocalResonate:
    """Runs durable executions whose outcome is known."""

    def __init__(self, resonate: Resonate, arrivals: _Arrivals) -> None:
        """Use an instance that has been started."""
        self._resonate = resonate
        self._arrivals = arrivals

    async def execute(self, execution_id: str, outcome: int) -> int:
        """Run one execution to its end; return what its function returned."""
        arrival = self._arrivals.expect(execution_id)
        handle = self._resonate.run(execution_id, _promise_first, execution_id)
        await self._resonate.promises.resolve(await arrival, Value(data=outcome))
        return await handle.result()


@asynccontextmanager
async def open_local() -> AsyncGenerator[LocalResonate]:
    """Start Resonate on a LocalConnection, set up as our own stores set it up; stop it on the way out."""
    arrivals = _Arrivals()
    resonate = Resonate(
        network=LocalConnection(),
        retry_policy=Never(),
        heartbeat=NoopHeartbeat(),
        subscription_refresh_secs=0,
        env={},
        autostart=False,
    )
    resonate.with_dependency(arrivals)
    resonate.register(_promise_first, name="promise_first")
    resonate.start()
    try:
        yield LocalResonate(resonate, arrivals)
    finally:
        await resonate.stop()
