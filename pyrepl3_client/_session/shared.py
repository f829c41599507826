"""A session that several use at a time: each has a face of its own, and closing one closes no other.

Whether it can be put into its store and come back as it was is asked here too.
"""

import asyncio
import secrets
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType, TracebackType
from typing import Any, Final, Self

from pyrepl3_client._concurrency.owner import Owner
from pyrepl3_client._execution.handlers import NO_HANDLERS
from pyrepl3_client._execution.offers import Capability
from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._files.actions import Written
from pyrepl3_client._files.transfer import Stop
from pyrepl3_client._files.view import FileView
from pyrepl3_client._launch.worker import Launch
from pyrepl3_client._session.checkpoints import AUTOMATIC, SILENCE_SECONDS
from pyrepl3_client._session.file_access import FileAccess
from pyrepl3_client._session.files import SessionFiles
from pyrepl3_client._session.open import open_supervisor
from pyrepl3_client._session.options import Durability
from pyrepl3_client._session.queries import WorkerQueries
from pyrepl3_client._session.session import Session
from pyrepl3_client._session.supervisor import SessionSupervisor
from pyrepl3_client._session.variables import DEFAULT_MAX_BYTES
from pyrepl3_client._session.variables import SILENCE_SECONDS as VARIABLE_SILENCE
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client._text import truncated
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.transfers import RequestRefused
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import ProtocolError, PyRepl3Error, SessionClosed
from pyrepl3_schemas.lifecycle import SessionState

_ANSWER_SECONDS: Final = 10.0
_SHOWN: Final = 5
"""How many of the things that would be lost a reason names."""


class SharedSession:
    """One session, its worker and its record. `share` gives a face of it to each who uses it."""

    def __init__(
        self,
        supervisor: SessionSupervisor,
        session: Session,
        durability: Durability,
        capabilities: Capabilities,
    ) -> None:
        """Made by `open_shared`."""
        self._supervisor = supervisor
        self._session = session
        self._durability = durability
        self._offered: dict[str, Capability | Callable[..., Any]] = dict(capabilities)

    @property
    def came_back(self) -> bool:
        """Whether it was opened again from what was on record."""
        reports = self._supervisor.recoveries
        return bool(reports) and reports[0].cause is None

    @property
    def busy(self) -> bool:
        """Whether anything of it runs, waits to be run, or is not recorded yet."""
        return bool(self._supervisor.queue.unsettled) or self._supervisor.recovering

    @property
    def is_usable(self) -> bool:
        """Whether it takes executions, or could after `restart` alone.

        False: it is closed; or it is dead (another process owns it now, say), and to open it again from its
        store is what brings it back.
        """
        state, durability = self._supervisor.state, self._durability
        if state is SessionState.DEAD:
            return durability.open_journal is None or durability.recovery == "none"
        return state not in (SessionState.CLOSING, SessionState.CLOSED)

    def share(self, give_back: Callable[[], None]) -> Session:
        """Return a face of it; closing that calls `give_back`, once, and closes nothing."""
        return SessionShare(self._session, give_back)

    def offer(self, capabilities: Capabilities) -> None:
        """Offer host functions; of two under one name the newest counts."""
        new = {name: each for name, each in capabilities.items() if not _same(self._offered.get(name), each)}
        if new:
            self._session.offer(**new)
            self._offered.update(new)

    async def wait_idle(self) -> None:
        """Wait until nothing of it runs."""
        while True:
            task = self._supervisor.recovery_task
            if task is not None:
                await asyncio.wait([task])
                continue
            execution = next(iter(self._supervisor.queue.unsettled), None)
            if execution is None:
                return
            await execution.wait_settled()

    async def why_not_passive(self) -> str:
        """Save it, and return in words what of it would not come back; empty if all of it would.

        It may be used meanwhile; what this returns is about the moment of the checkpoint then.
        """
        if self._supervisor.state is not SessionState.READY:
            return "it has no worker that could save it"
        try:
            running = await self._background()
            if running:
                return f"the code has left running: {running}"
            saved = await self._supervisor.checkpoints.save(AUTOMATIC, silence=SILENCE_SECONDS)
            # What has begun while that was waited for.
            running = await self._background()
        except PyRepl3Error as error:
            return f"it cannot be saved: {truncated(str(error))}"
        if running:
            return f"the code has left running: {running}"
        lost = [f"{unsaved.name} ({unsaved.type_name}: {unsaved.reason})" for unsaved in saved.unsaved]
        return f"a checkpoint cannot hold {_some(lost)}" if lost else ""

    async def _background(self) -> str:
        worker = await self._supervisor.ready_worker()
        try:
            answer: Any = await worker.requests.by_kind.ask("background", None, _ANSWER_SECONDS)
        except RequestRefused as refused:
            raise ProtocolError(f"its worker does not tell what runs: {refused}") from None
        return _some([str(each) for each in answer])

    async def close(self) -> None:
        """End it for all who use it. In a store it stays."""
        await self._session.close()


class SessionShare(Session):
    """One user's face of a session that others use too. Once closed it refuses every use."""

    def __init__(self, session: Session, give_back: Callable[[], None]) -> None:
        """Show `session`, which this does not close; `give_back` is called when this is closed."""
        # It is that session; what follows is each user's own.
        vars(self).update(vars(session))
        self._owner = self._own = _ShareOwner(f"session {session.session_id!r}")
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        # Holds nothing of this object: one that is dropped is noticed at once.
        self._queries = WorkerQueries(partial(_ready_worker, self._own, self._supervisor))
        self._files = SessionFiles(_ShareFileAccess(session._file_access, self._own))  # noqa: SLF001 - of this same class
        self._id_prefix = f"{secrets.token_hex(4)}-"
        self._ids_made = 0

    def __repr__(self) -> str:
        """Show id, state and worker, or that it was given back."""
        return f"<Session {self.session_id!r} given back>" if self._own.given_back else super().__repr__()

    async def __aenter__(self) -> Self:
        """Return the session, which leaving the context gives back.

        Raises:
            SessionClosed: it was given back already, or is closed.
        """
        self._owner.check()
        self._refuse_closed()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the session back. In a forked child, whose session it is not, do nothing."""
        if self._owner.is_this_process:
            await self.close()

    async def set(self, /, **values: Any) -> None:
        """Bind variables in the session. See `Session.set`."""
        self._owner.check()
        await super().set(**values)

    async def get(
        self,
        name: str,
        *,
        arrow: bool = False,
        timeout: float | None = VARIABLE_SILENCE,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Any:
        """Return the value of a variable. See `Session.get`."""
        self._owner.check()
        return await super().get(name, arrow=arrow, timeout=timeout, max_bytes=max_bytes)

    async def close(self) -> None:
        """Give the session back: it goes on for all others. Idempotent."""
        if not self._own.given_back:
            self._owner.check()
            self._own.given_back = True
            self._give_back()

    def __del__(self) -> None:
        """Give back what was dropped, with a warning: it would never be idle."""
        if not vars(self).get("_own") or self._own.given_back or not self._own.is_this_process:
            return
        self._own.given_back = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._give_back)
        warnings.warn(
            f"session {self.session_id!r} of a pool was never given back: use `async with`, or close it",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class _ShareOwner(Owner):
    """Lets a face of a session be used where it belongs, until it is given back."""

    __slots__ = ("_shown", "given_back")

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._shown = what
        self.given_back = False

    def check(self) -> None:
        if self.given_back:
            raise SessionClosed(
                f"{self._shown} was given back to its pool here: pool.session() with its name gives it again"
            )
        super().check()


class _ShareFileAccess(FileAccess):
    """Acts on the files of a session for one of its users, until that has given it back."""

    def __init__(self, access: FileAccess, owner: Owner) -> None:
        self.session_id = access.session_id
        self._access = access
        self._owner = owner

    async def change(self, action: str, path: str, work: Callable[[FileView, Stop], Written]) -> None:
        self._owner.check()
        await self._access.change(action, path, work)

    async def run[T](self, action: str, path: str, work: Callable[[FileView, Stop], T]) -> T:
        self._owner.check()
        return await self._access.run(action, path, work)


async def open_shared(
    launch: Launch,
    session_id: str,
    config: WorkerConfig,
    capabilities: Capabilities,
    durability: Durability,
    event_handlers: Sequence[EventHandler],
    release: Callable[[], None],
) -> SharedSession:
    """Open a session for several users; `release` is called when it is closed.

    Raises:
        SpawnError, StoreError, CapabilityError: as `open_session`.
    """
    supervisor = await open_supervisor(
        launch, session_id, config, capabilities, NO_HANDLERS, durability, event_handlers
    )
    session = await Session(supervisor, config, release).__aenter__()
    return SharedSession(supervisor, session, durability, capabilities)


async def _ready_worker(owner: Owner, supervisor: SessionSupervisor) -> WorkerHandle:
    owner.check()
    return await supervisor.ready_worker()


def _same(one: object, other: object) -> bool:
    # A method is a new object each time that it is looked up.
    return one is other or (isinstance(one, MethodType) and isinstance(other, MethodType) and one == other)


def _some(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
