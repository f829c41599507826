"""Ends sessions at chosen points of the durable path, and sees that everything their callers await ends.

A point is a place where the client waits, or where it is told something: before and after each transaction
of the store, each request to the worker, and each start of a worker, where what waits is held; and each read
of the worker's frames. The n-th point of a program is reached; then the session is closed, restarted,
cancelled, or loses its lease, while the store is well, locked, full or slow.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._wire.connection import Connection
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.requests import Requests
from pyrepl3_client.durable.sqlite.connection import SqliteConnection
from tests.helpers.real_sessions import quick

type Ending = Literal["close", "restart", "cancel", "lose"]
type StoreState = Literal["well", "locked", "full", "slow"]
ENDINGS: Final[tuple[Ending, ...]] = ("close", "restart", "cancel", "lose")
STORE_STATES: Final[tuple[StoreState, ...]] = ("well", "locked", "full", "slow")

_BOUND: Final = 25.0
"""Seconds within which everything ends; on a quiet machine a second is enough."""
_BUSY_SECONDS: Final = 0.3
_HELD_SECONDS: Final = 0.1
"""How long what waits at the point is held at most, while the session is being ended."""
_SLOW_SECONDS: Final = 0.02
_FIRST: Final = "import os; x = 1; x"
_PRINTS: Final = "for i in range(3): print(i)\n'printed'"
_ASKS: Final = "asked = ask(2); asked"
_DIES: Final = "if ask('die'): import os; os.system(f'kill -9 {os.getpid()}')\nx += 1; x"
_LAST: Final = "x"


class Points:
    """Counts the points that a program reaches, and holds it at one of them."""

    def __init__(self, target: int | None) -> None:
        self.count = 0
        self.target = target
        self.open = False
        """Whether the session is open: only then are points counted."""
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.slow = False
        self.at = ""
        self.connection: SqliteConnection | None = None
        """The session's own, the last that has asked for something."""

    @property
    def database(self) -> Any:
        """The session's own database; None before it is used."""
        return None if self.connection is None else self.connection._database  # pyright: ignore[reportPrivateUsage]

    def note(self, what: str) -> bool:
        """Count a point; return whether it is the one."""
        if not self.open:
            return False
        here = self.count == self.target
        self.count += 1
        if here:
            self.at = what
            self.reached.set()
        return here

    async def hold(self, what: str) -> None:
        """Count a point, and wait there if it is the one."""
        if self.note(what):
            await self.go_on.wait()

    @contextmanager
    def watched(self) -> Generator[None]:
        """Have all points counted, of every session."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in (
                (SqliteConnection, "retry_while_busy"),
                (SqliteConnection, "send"),
                (Requests, "ask"),
                (WorkerHandle, "wait_ready"),
                (WorkerHandle, "stop"),
            ):
                patch.setattr(owner, name, self._held(getattr(owner, name), name))
            dispatch = Connection._dispatch  # pyright: ignore[reportPrivateUsage] - where all frames come by

            def dispatched(connection: Connection, messages: list[Any]) -> None:
                self.note(f"frames {[type(message).__name__ for message in messages]}")
                dispatch(connection, messages)

            patch.setattr(Connection, "_dispatch", dispatched)
            yield

    def _held(self, waits: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
        async def held(*args: Any, **kwargs: Any) -> Any:
            if isinstance(args[0], SqliteConnection):
                self.connection = args[0]
            await self.hold(f"before {name}")
            if self.slow and name in ("retry_while_busy", "send"):
                await asyncio.sleep(_SLOW_SECONDS)
            result = await waits(*args, **kwargs)
            await self.hold(f"after {name}")
            return result

        return held


@dataclass
class Told:
    """What the program's awaits came to."""

    outcomes: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """What each execution was said to have come to, by its id."""
    errors: list[tuple[str, BaseException]] = field(default_factory=list[tuple[str, BaseException]])


class Program:
    """Calls whatever a caller can await, each in a task of its own."""

    def __init__(self, session: pyrepl3.Session, told: Told) -> None:
        self._session = session
        self._told = told
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Do it all; return when every await has ended."""
        session = self._session
        self._execute("a", _FIRST)
        await self._all()
        self._iterate("b", _PRINTS)
        self._execute("b", _PRINTS)
        self._execute("c", _ASKS)
        self._await("ping", session.ping)
        self._await("stats", session.stats)
        self._await("variables", session.variables)
        self._await("checkpoint", lambda: session.checkpoint("here"))
        await self._all()
        self._execute("d", _DIES)
        self._execute("e", _LAST)
        self._await("checkpoint", session.checkpoint)
        await self._all()
        self._await("restore", lambda: session.restore("here"))
        self._execute("f", _LAST)
        self._cancel("g", "while True: pass")
        await self._all()

    def cancel(self) -> None:
        """Cancel every await."""
        for task in self._tasks:
            task.cancel()

    def describe(self) -> str:
        """Return what has not ended."""
        return ", ".join(task.get_name() for task in self._tasks if not task.done())

    async def _all(self) -> None:
        await asyncio.wait(self._tasks)

    def _await(self, name: str, call: Callable[[], Awaitable[Any]]) -> None:
        async def ended() -> None:
            try:
                await call()
            except (Exception, asyncio.CancelledError) as error:
                self._told.errors.append((name, error))

        self._tasks.append(asyncio.create_task(ended(), name=name))

    def _tell(self, result: pyrepl3.ExecutionResult) -> None:
        what = repr(result.value) if result.error is None else result.error.kind
        self._told.outcomes.setdefault(result.execution_id, set()).add(what)

    def _execute(self, execution_id: str, code: str) -> None:
        async def execute() -> None:
            self._tell(await self._session.execute(code, execution_id=execution_id, check=False))

        self._await(f"execute {execution_id}", execute)

    def _iterate(self, execution_id: str, code: str) -> None:
        async def iterate() -> None:
            execution = self._session.start(code, execution_id=execution_id, check=False)
            self._await(f"result {execution_id}", lambda: result(execution))
            async for _ in execution:
                pass

        async def result(execution: pyrepl3.Execution) -> None:
            self._tell(await execution)

        self._await(f"iterate {execution_id}", iterate)

    def _cancel(self, execution_id: str, code: str) -> None:
        async def cancel() -> None:
            execution = self._session.start(code, execution_id=execution_id, check=False)
            await execution.cancel()
            await execution.cancel()
            self._tell(await execution)

        self._await(f"cancel {execution_id}", cancel)


class Store:
    """The store's file, and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._other = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)

    def spoil(self, state: StoreState, points: Points) -> None:
        """Make it what `state` says."""
        match state:
            case "well":
                pass
            case "locked":
                self._other.execute("BEGIN IMMEDIATE")
            case "full":
                # How much room there is, is a property of each connection.
                if points.database is not None:
                    (pages,) = points.database.execute("PRAGMA page_count").fetchone()
                    points.database.execute(f"PRAGMA max_page_count = {pages}")
            case "slow":
                points.slow = True

    def lose_lease(self) -> None:
        """Write what another owner writes when it takes the session."""
        self._other.execute(
            "UPDATE sessions SET owner = 'elsewhere/1/1/b/n/r', token = token + 1, expires_at = expires_at + 9999"
        )

    def release_lease(self) -> None:
        """Let the next owner have the session."""
        self._other.execute("UPDATE sessions SET expires_at = 0")

    def mend(self, points: Points) -> None:
        """Make it well again."""
        points.slow = False
        if self._other.in_transaction:
            self._other.execute("COMMIT")
        with suppress(sqlite3.ProgrammingError):  # the session has closed it
            if points.database is not None:
                points.database.execute("PRAGMA max_page_count = 4294967294")

    def statuses(self) -> dict[str, str]:
        """Return what is on record of each execution."""
        with closing(sqlite3.connect(self._path, timeout=5)) as reader:
            return dict(reader.execute("SELECT id, status FROM executions").fetchall())

    def close(self) -> None:
        self._other.close()


@asynccontextmanager
async def _opened(path: Path) -> AsyncGenerator[pyrepl3.Session]:
    deaths = iter([True])

    def ask(what: object) -> object:
        return next(deaths, False) if what == "die" else what

    url = f"sqlite:{path}?busy_timeout={_BUSY_SECONDS}"
    async with pyrepl3.open_session("s", store=url, config=quick(), capabilities={"ask": ask}) as session:
        yield session


async def _end(ending: Ending, session: pyrepl3.Session, program: Program) -> None:
    match ending:
        case "close":
            await asyncio.gather(session.close(), session.close())
        case "restart":
            with suppress(pyrepl3.PyRepl3Error):  # it says why; whether waits end is what counts
                await session.restart()
        case "cancel":
            program.cancel()
        case "lose":
            pass  # done: its next request to the store tells it


async def check(path: Path, target: int | None, ending: Ending, state: StoreState) -> int:
    """Run the program in a new store, and end its session at a point; return how many points there were.

    Raises:
        AssertionError: an await did not end, ended with what says nothing, or was told what is not on record.
    """
    points, told = Points(target), Told()
    with points.watched():
        waiting = ""
        try:
            with anyio.fail_after(_BOUND):
                async with _opened(path) as session:
                    store = Store(path)
                    points.open = True
                    program = Program(session, told)
                    running = asyncio.create_task(program.run())
                    try:
                        await _disturb(points, ending, state, session, program, store, running)
                    finally:
                        waiting = program.describe()
                        running.cancel()
                        points.open = False
                        points.go_on.set()
                        store.mend(points)
                    waiting = "close"
        except TimeoutError:
            raise AssertionError(f"never ended: {waiting} ({ending}, {state}, at {points.at})") from None
    statuses = store.statuses()
    store.close()
    for execution_id, outcomes in told.outcomes.items():
        assert len(outcomes) == 1, (execution_id, outcomes, points.at)
        assert statuses.get(execution_id) in ("finished", "rejected"), (execution_id, outcomes, points.at)
    for name, error in told.errors:
        known = (pyrepl3.PyRepl3Error, ValueError, asyncio.CancelledError)
        assert isinstance(error, known), (name, error, points.at)
        assert not isinstance(error, asyncio.CancelledError) or ending == "cancel", (name, error, points.at)
        assert str(error) or isinstance(error, asyncio.CancelledError), (name, error, points.at)
    return points.count


async def _disturb(
    points: Points,
    ending: Ending,
    state: StoreState,
    session: pyrepl3.Session,
    program: Program,
    store: Store,
    running: asyncio.Task[None],
) -> None:
    """Wait for the point, end the session there, and wait for all that the program awaits."""
    reaching = asyncio.create_task(points.reached.wait())
    await asyncio.wait([reaching, running], return_when=asyncio.FIRST_COMPLETED)
    reaching.cancel()
    if points.reached.is_set():
        if ending == "lose":
            store.lose_lease()  # before its lock
        store.spoil(state, points)
        end = asyncio.create_task(_end(ending, session, program))
        await asyncio.wait([end], timeout=_HELD_SECONDS)
        points.go_on.set()
        await end
    await running
