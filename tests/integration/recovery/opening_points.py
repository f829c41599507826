"""Ends sessions at chosen points of their opening, and sees that everything their callers await ends.

The session that is opened is on record with a checkpoint, a name that no checkpoint holds, cells after it, and
one that was under way when its owner was lost. Points are those of `await_points`.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._session.confinement_level import RecordedLevel
from pyrepl3_client._session.opener import SessionOpener
from pyrepl3_client._session.supervisor import SessionSupervisor
from pyrepl3_schemas.lifecycle import SessionState
from tests.helpers.real_sessions import quick
from tests.integration.recovery.await_points import Points, Store, StoreState

type OpeningEnd = Literal["close", "restart", "cancel", "lose", "die"]
OPENING_ENDS: Final[tuple[OpeningEnd, ...]] = ("close", "restart", "cancel", "lose", "die")

_BOUND: Final = 25.0
"""Seconds within which everything ends; on a quiet machine a second is enough."""
_BUSY_SECONDS: Final = 0.3
_HELD_SECONDS: Final = 0.1
"""How long what waits at the point is held at most, while the session is being ended."""
_PENDING: Final = "x += 10; ask('pending')"
_KNOWN: Final = (pyrepl3.PyRepl3Error, ValueError)


def _open(path: Path) -> SessionOpener:
    def ask(what: object) -> object:
        return what

    return pyrepl3.open_session(
        "s",
        store=f"sqlite:{path}?busy_timeout={_BUSY_SECONDS}",
        config=quick(),
        capabilities={"ask": pyrepl3.capability(ask, repeatable=True)},
    )


async def make_record(path: Path) -> None:
    """Make the store of a session whose owner was lost while a cell was under way."""
    store: Store | None = None

    def ask(what: object) -> object:
        if what == "pending":
            assert store is not None
            store.lose_lease()
        return what

    repeatable = pyrepl3.capability(ask, repeatable=True)
    opening = pyrepl3.open_session("s", store=str(path), config=quick(), capabilities={"ask": repeatable})
    async with opening as session:
        store = Store(path)
        await session.execute("x = 1; places = (n for n in range(9)); next(places)")
        await session.checkpoint("here")
        await session.execute("x += ask(1)")
        with suppress(pyrepl3.StoreError):
            await session.execute(_PENDING, execution_id="pending")
    store.release_lease()
    store.close()


class Opening:
    """One session that is opened, and what its caller awaits."""

    def __init__(self, path: Path, points: Points) -> None:
        self.supervisor: SessionSupervisor | None = None
        self.errors: list[tuple[str, BaseException]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._path = path
        self._points = points

    @contextmanager
    def watched(self) -> Generator[None]:
        """Know the session while it is opened, which nobody else does."""
        start = SessionSupervisor.start

        async def known(supervisor: SessionSupervisor, began: float, level: RecordedLevel | None) -> None:
            self.supervisor = supervisor
            await start(supervisor, began, level)

        with self._points.watched(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(SessionSupervisor, "start", known)
            yield

    async def run(self) -> None:
        """Open the session, use it, and close it."""
        self._await("open", self._opened())
        await asyncio.wait(self.tasks)

    def cancel(self) -> None:
        """Cancel what the caller awaits."""
        for task in self.tasks:
            task.cancel()

    def describe(self) -> str:
        """Return what has not ended."""
        return ", ".join(task.get_name() for task in self.tasks if not task.done())

    async def end(self, end: OpeningEnd, store: Store) -> None:
        """End the session, as far as it is there by now."""
        match end:
            case "close" if self.supervisor is not None:
                await asyncio.gather(self.supervisor.close(), self.supervisor.close())
            case "restart" if self.supervisor is not None and self.supervisor.worker is not None:
                with suppress(pyrepl3.PyRepl3Error):  # it says why; whether waits end is what counts
                    await self.supervisor.restart()
            case "die" if self.supervisor is not None:
                worker = self.supervisor.worker
                self.supervisor.kill_worker()
                if worker is not None:
                    await asyncio.wait([worker.connection.exited])
            case "close" | "cancel":
                self.cancel()
            case "lose":
                store.lose_lease()  # its next request to the store tells it
            case _:
                pass

    async def _opened(self) -> None:
        async with _open(self._path) as session:
            self._points.open = False
            for name, awaited in (
                ("pending", session.execute(_PENDING, execution_id="pending", check=False)),
                ("x", session.execute("x", execution_id="x", check=False)),
                ("ping", session.ping()),
            ):
                self._await(name, awaited)
            _, *users = self.tasks
            await asyncio.wait(users)

    def _await(self, name: str, awaited: Awaitable[Any]) -> None:
        async def ended() -> None:
            try:
                await awaited
            except (Exception, asyncio.CancelledError) as error:
                self.errors.append((name, error))

        self.tasks.append(asyncio.create_task(ended(), name=name))


async def check_opening(
    record: Path, path: Path, target: int | None, end: OpeningEnd, state: StoreState
) -> int:
    """Open the session on record, and end it at a point; return how many points the opening has.

    Raises:
        AssertionError: an await did not end, or ended with what says nothing; the session, or a worker of it,
            was left behind; opening it once more brings back something else.
    """
    shutil.copy(record, path)
    before = asyncio.all_tasks()
    points, waiting = Points(target), ""
    points.open = True
    store, opening = Store(path), Opening(path, points)
    with opening.watched():
        try:
            with anyio.fail_after(_BOUND):
                running = asyncio.create_task(opening.run())
                try:
                    await _disturb(points, end, state, opening, store, running)
                finally:
                    waiting = opening.describe()
                    running.cancel()
                    opening.cancel()
                    points.go_on.set()
                    store.mend(points)
        except TimeoutError:
            raise AssertionError(f"never ended: {waiting} ({end}, {state}, at {points.at})") from None
    for name, error in opening.errors:
        cancelled = isinstance(error, asyncio.CancelledError) and end in ("cancel", "close")
        assert cancelled or (isinstance(error, _KNOWN) and str(error)), (name, error, end, points.at)
    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    assert not left, (left, end, state, points.at)
    supervisor = opening.supervisor
    if supervisor is not None:
        assert supervisor.state is SessionState.CLOSED, (supervisor.state, end, state, points.at)
        assert supervisor.worker is None or not _lives(supervisor.worker.pid), (end, state, points.at)
    if end == "lose" or state in ("locked", "full"):
        store.release_lease()  # it could not, or it was not its own
    store.close()
    with anyio.fail_after(_BOUND):
        async with _open(path) as again:
            pending = await again.execute(_PENDING, execution_id="pending", check=False)
            there = (await again.execute("globals().get('x')")).value
    if end == "restart" and pending.error is not None:
        return points.count  # it had taken executions by then, and has lost all names
    assert pending.error is None or end == "cancel", (pending.error, end, state, points.at)
    assert there == (12 if pending.error is None else 2), (there, end, state, points.at)
    return points.count


async def _disturb(
    points: Points,
    end: OpeningEnd,
    state: StoreState,
    opening: Opening,
    store: Store,
    running: asyncio.Task[None],
) -> None:
    reaching = asyncio.create_task(points.reached.wait())
    await asyncio.wait([reaching, running], return_when=asyncio.FIRST_COMPLETED)
    reaching.cancel()
    await asyncio.wait([reaching])
    if points.reached.is_set():
        if end == "lose":
            store.lose_lease()  # before its lock
        store.spoil(state, points)
        ending = asyncio.create_task(opening.end(end, store)) if end != "lose" else None
        if ending is not None:
            await asyncio.wait([ending], timeout=_HELD_SECONDS)
        points.go_on.set()
        if ending is not None:
            await ending
    await running


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
