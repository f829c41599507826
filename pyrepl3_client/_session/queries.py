"""Requests to a session's worker that run no code: ping, metrics, completions, inspection."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.transfers import RequestRefused
from pyrepl3_client.config import checked_seconds
from pyrepl3_client.errors import ProtocolError
from pyrepl3_client.results import Completeness
from pyrepl3_schemas.executor_config import as_int, shown
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
    """Asks the worker that a session has at the moment. It runs no code there.

    An argument of a wrong value or type is a ValueError or a TypeError, and nothing is sent then.
    """

    def __init__(self, ready: Callable[[], Awaitable[WorkerHandle]]) -> None:
        """Ask the worker that `ready()` returns; it raises when there is none and none is coming."""
        self._ready_worker = ready

    async def ping(self, timeout: float = 5.0) -> Pong:
        """Ask for a sign of life. See `Session.ping`."""
        seconds = checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        number = requests.next_number()
        return await requests.ask(Ping(nonce=number), Pong, str(number), seconds, urgent=True)

    async def stats(self, timeout: float = 10.0) -> Metrics:
        """Ask for the metrics of the session's executions. See `Session.stats`."""
        seconds = checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        key = str(requests.next_number())
        stats = await requests.ask(GetStats(request_id=key), Stats, key, seconds, urgent=True)
        return stats.metrics

    async def complete(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Completions:
        """Ask what can stand at `cursor`. See `Session.complete`."""
        at, seconds = _checked_cursor(code, cursor), checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        key = str(requests.next_number())
        message = Complete(code=code, cursor=at, request_id=key)
        return await requests.ask(message, Completions, key, seconds, urgent=True)

    async def inspect(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Inspection:
        """Ask about the name at `cursor`. See `Session.inspect`."""
        at, seconds = _checked_cursor(code, cursor), checked_seconds("timeout", timeout)
        requests = (await self._ready_worker()).requests
        key = str(requests.next_number())
        message = Inspect(code=code, cursor=at, request_id=key)
        return await requests.ask(message, Inspection, key, seconds, urgent=True)

    async def is_complete(self, code: str, timeout: float = 10.0) -> Completeness:
        """Ask whether code is complete. See `Session.is_complete`."""
        _checked_cursor(code, None)
        seconds = checked_seconds("timeout", timeout)
        worker = await self._ready_worker()
        try:
            answer: Any = await worker.requests.by_kind.ask("is_complete", {"code": code}, seconds)
        except RequestRefused as refused:
            raise ValueError(str(refused)) from None
        try:
            return msgspec.convert(answer, Completeness)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"its answer to an is_complete request is broken: {error}") from None

    async def variables(self, timeout: float = 10.0) -> dict[str, Variable]:
        """Ask for the namespace's variables. See `Session.variables`."""
        inspection = await self.inspect("", 0, timeout)
        return {variable.name: variable for variable in inspection.variables}


def _checked_cursor(code: str, cursor: int | None) -> int:
    """Return a position in the code, its end by default; one outside of the code is the nearer end."""
    if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"code must be a string, not {shown(code)}")
    return len(code) if cursor is None else min(max(as_int("cursor", cursor), 0), len(code))
