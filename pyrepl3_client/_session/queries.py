"""What can be asked of a session's worker, at any time."""

from collections.abc import Awaitable, Callable

from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.config import checked_seconds
from pyrepl3_schemas.executor_config import as_int
from pyrepl3_schemas.messages import (
    Complete,
    Completions,
    GetStats,
    Inspect,
    Inspection,
    Metrics,
    Ping,
    Pong,
    Stats,
    Variable,
)


class WorkerQueries:
    """The part of a session that asks and runs nothing.

    Arguments that mean nothing are a ValueError or a TypeError, and nothing is asked then.
    """

    def __init__(self, ready: Callable[[], Awaitable[WorkerHandle]]) -> None:
        """Ask `await ready()`, the worker that is there now; it raises when there is none to come."""
        self._ready_worker = ready

    async def ping(self, timeout: float = 5.0) -> Pong:
        """Ask for a sign of life: resident bytes, CPU seconds, queue, what runs. Answered while code runs.

        Raises:
            WorkerUnresponsive: no answer within `timeout` seconds; a TimeoutError too. So do the others.
        """
        seconds = checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        number = requests.number()
        return await requests.ask(Ping(nonce=number), Pong, str(number), seconds, urgent=True)

    async def stats(self, timeout: float = 10.0) -> Metrics:
        """Ask for the metrics of the session's executions. Answered while code runs."""
        seconds = checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        key = str(requests.number())
        stats = await requests.ask(GetStats(request_id=key), Stats, key, seconds, urgent=True)
        return stats.metrics

    async def complete(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Completions:
        """Ask what could stand at `cursor`, in characters (the end by default). Answered while code runs."""
        at, seconds = _checked_cursor(code, cursor), checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        key = str(requests.number())
        message = Complete(code=code, cursor=at, request_id=key)
        return await requests.ask(message, Completions, key, seconds, urgent=True)

    async def inspect(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Inspection:
        """Ask about the name at `cursor`, in characters (the end by default). Answered while code runs."""
        at, seconds = _checked_cursor(code, cursor), checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        key = str(requests.number())
        message = Inspect(code=code, cursor=at, request_id=key)
        return await requests.ask(message, Inspection, key, seconds, urgent=True)

    async def variables(self, timeout: float = 10.0) -> dict[str, Variable]:
        """Ask for the namespace's names, their types and short reprs. Answered while code runs."""
        inspection = await self.inspect("", 0, timeout)
        return {variable.name: variable for variable in inspection.variables}


def _checked_cursor(code: str, cursor: int | None) -> int:
    """Give a place in the code, the end by default; one that lies beyond an end is that end."""
    if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"code must be a string, not {type(code).__name__}")
    return len(code) if cursor is None else min(max(as_int("cursor", cursor), 0), len(code))
