"""Requests to a session's worker that run no code: ping, metrics, completions, inspection."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.transfers import RequestRefused
from pyrepl3_client.config import checked_seconds
from pyrepl3_client.errors import ProtocolError, WorkerDied
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


async def ask_worker[T](
    ready: Callable[[], Awaitable[WorkerHandle]], ask: Callable[[WorkerHandle], Awaitable[T]]
) -> T:
    """Ask the worker that `ready()` returns for what changes nothing there.

    When it dies meanwhile, the one that the session comes back with is asked, but no third one: the question
    may be what they die of.

    Raises:
        WorkerDied: the session does not come back, or its next worker died too.
    """
    worker = await ready()
    try:
        return await ask(worker)
    except WorkerDied as died:
        try:
            following = await ready()
        except WorkerDied:
            raise died from None
        if following is worker:
            raise
    return await ask(following)


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

        async def ask(worker: WorkerHandle) -> Pong:
            number = worker.requests.next_number()
            return await worker.requests.ask(Ping(nonce=number), Pong, str(number), seconds, urgent=True)

        return await ask_worker(self._ready_worker, ask)

    async def stats(self, timeout: float = 10.0) -> Metrics:
        """Ask for the metrics of the session's executions. See `Session.stats`."""
        seconds = checked_seconds("timeout", timeout)

        async def ask(worker: WorkerHandle) -> Metrics:
            key = str(worker.requests.next_number())
            message = GetStats(request_id=key)
            return (await worker.requests.ask(message, Stats, key, seconds, urgent=True)).metrics

        return await ask_worker(self._ready_worker, ask)

    async def complete(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Completions:
        """Ask what can stand at `cursor`. See `Session.complete`."""
        at, seconds = _checked_cursor(code, cursor), checked_seconds("timeout", timeout)

        async def ask(worker: WorkerHandle) -> Completions:
            key = str(worker.requests.next_number())
            message = Complete(code=code, cursor=at, request_id=key)
            return await worker.requests.ask(message, Completions, key, seconds, urgent=True)

        return await ask_worker(self._ready_worker, ask)

    async def inspect(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Inspection:
        """Ask about the name at `cursor`. See `Session.inspect`."""
        at, seconds = _checked_cursor(code, cursor), checked_seconds("timeout", timeout)

        async def ask(worker: WorkerHandle) -> Inspection:
            key = str(worker.requests.next_number())
            message = Inspect(code=code, cursor=at, request_id=key)
            return await worker.requests.ask(message, Inspection, key, seconds, urgent=True)

        return await ask_worker(self._ready_worker, ask)

    async def is_complete(self, code: str, timeout: float = 10.0) -> Completeness:
        """Ask whether code is complete. See `Session.is_complete`."""
        _checked_cursor(code, None)
        seconds = checked_seconds("timeout", timeout)
        try:
            answer: Any = await ask_worker(
                self._ready_worker,
                lambda worker: worker.requests.by_kind.ask("is_complete", {"code": code}, seconds),
            )
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
