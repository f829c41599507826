"""pydantic-monty: a subset of Python interpreted in Rust, in a pool of worker processes."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

from benchmarks.peers import load

type HostFunctions = Mapping[str, Callable[..., object]]


class Session(Protocol):
    """A worker checked out of the pool."""

    async def feed_run(
        self, code: str, *, external_lookup: HostFunctions | None = None, print_callback: object = None
    ) -> Any:
        """Run code; return the value of its last expression."""
        ...

    @property
    def worker_pid(self) -> int | None:
        """The worker's process."""
        ...


class Pool(Protocol):
    """Workers, kept ready."""

    def checkout(self, *, limits: Mapping[str, int] | None = None) -> AbstractAsyncContextManager[Session]:
        """Take a worker for a session, for as long as the block lasts."""
        ...


class _Monty(Protocol):
    def AsyncMonty(  # noqa: N802 - monty's name
        self, *, min_processes: int = 1, max_processes: int | None = None
    ) -> AbstractAsyncContextManager[Pool]: ...

    def CollectString(self, max_bytes: int | None) -> "Collected": ...  # noqa: N802 - monty's name


class Collected(Protocol):
    """Takes what a session prints."""

    @property
    def output(self) -> str:
        """All of it."""
        ...


# A session may call its host 1,000 times unless it is told otherwise; a benchmark calls more often.
LIMITS: Mapping[str, int] = {"max_suspensions": 1_000_000_000}


def open_pool(processes: int = 1) -> AbstractAsyncContextManager[Pool]:
    """Yield a pool of that many workers, started on entry.

    Raises:
        NotInstalledError: there is no pydantic-monty.
    """
    return _load().AsyncMonty(min_processes=processes, max_processes=processes)


def collector() -> Collected:
    """Return a collector of a session's output without a bound, for `print_callback`."""
    return _load().CollectString(None)


def _load() -> _Monty:
    return cast("_Monty", load("pydantic_monty"))
