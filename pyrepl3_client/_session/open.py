"""Opens a session, and closes it so that nothing stays behind."""

import asyncio
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Final, get_args

from pyrepl3_client._concurrency.uncancellable import wait_uncancelled
from pyrepl3_client._execution.handlers import (
    NO_HANDLERS,
    DisplayHandler,
    Handlers,
    InputHandler,
    OutputHandler,
    make_handlers,
)
from pyrepl3_client._execution.offers import checked_capabilities
from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._journal.protocol import Journal, OnTrouble
from pyrepl3_client._launch.shared_fork_server import SharedForkServer
from pyrepl3_client._launch.worker import Launch
from pyrepl3_client._launch.writable_paths import check_writable
from pyrepl3_client._session.confinement_level import RecordedLevel
from pyrepl3_client._session.opener import SessionOpener
from pyrepl3_client._session.options import Durability, OpenJournal, RecoveryHandler
from pyrepl3_client._session.own_directory import OwnDirectory
from pyrepl3_client._session.recovery_report import RecoveryPolicy
from pyrepl3_client._session.session import Session
from pyrepl3_client._session.supervisor import SessionSupervisor
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client.config import (
    ExecutorConfig,
    ResourceLimits,
    SandboxPolicy,
    WorkerConfig,
    checked_bool,
    checked_callable,
    checked_choice,
    checked_id,
)
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.executor_config import MAX_SECONDS, as_float, as_int, shown

DEFAULT_CONFIG: Final = WorkerConfig()
IN_MEMORY: Final = Durability()
_POLICIES: Final = frozenset(get_args(RecoveryPolicy.__value__))


def open_session(
    session_id: str | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    config: WorkerConfig = DEFAULT_CONFIG,
    capabilities: Capabilities | None = None,
    on_output: OutputHandler | None = None,
    on_input: InputHandler | None = None,
    on_display: DisplayHandler | None = None,
    recovery: RecoveryPolicy = "auto",
    max_attempts: int = 3,
    on_recovery: RecoveryHandler | None = None,
    on_event: EventHandler | None = None,
    wait: float = 0.0,
    allow_weaker_confinement: bool = False,
) -> SessionOpener:
    """Start a worker and open a session in it: `async with` closes it at the end, `await` leaves it open.

    A session may be closed in another task than it was opened in, on the same event loop. One that is not
    closed is ended when the interpreter exits, with a ResourceWarning.

    Args:
        session_id: names the session; without a colon. One is made up by default.
        store: where the session is recorded. None is this process's memory: the session survives its
            workers. The path of an SQLite file (or `sqlite:///path?synchronous=FULL`), `http(s)://` for a
            Resonate server or `postgresql://` for resonate-pg: it survives this process too, and
            opening it again under the same `session_id` goes on where it stood. `memory:` is Resonate in
            this process's memory.
        config: the worker's interpreter, surroundings, limits and graces.
        capabilities: host functions by the names under which the code may call them; see `capability`.
        on_output: gets every `Output` in order: also what comes after its execution has ended (`late`)
            and what belongs to none. It runs on the event loop; an asynchronous one is awaited before it
            gets the next. It must not wait for an execution of this session.
        on_input: answers prompts; a plain function runs in a thread and may block. None, as an answer or
            a handler, is the end of input: `input()` raises EOFError.
        on_display: gets every `Display` in order, as `on_output` gets output: also late ones, updates, and
            those that only `clear` what was shown.
        recovery: what a worker's death leads to: `auto` restores the newest checkpoint and runs again what
            came after it; `replay` runs all finished cells again; `checkpoint` restores and never runs a
            finished cell again; `none` leaves the session dead, for `restart`.
        max_attempts: how many workers one execution may cost before it ends with WorkerDied; at least 1.
        on_recovery: gets the report when the session has come back; an asynchronous one is awaited.
        on_event: gets a `SessionEvent` for each start, end and death of a worker, recovery, checkpoint, host
            call and trouble with the store. A plain function is called in a thread. One that is slow or
            fails is told in the log, and holds up nothing.
        wait: seconds to wait while the session is another owner's, which may close it, end or be dead.
        allow_weaker_confinement: open a session that has run strictly confined at a weaker level; by default
            that is a WeakerConfinement. What its code has saved is loaded, and may do what that level allows.

    Returns:
        What opens the `Session`, once: `await` it, or enter it by `async with`. What is raised below about
        arguments is raised at once, the rest then.

    Raises:
        SpawnError: no worker can be started; says why, with the last lines it wrote.
        CapabilityError: a capability cannot be offered.
        SessionBusy: the session is another owner's, still after `wait`; the text says whose.
        WeakerConfinement: the session has run more confined than it is opened.
        StoreError: the store cannot be used.
        ValueError, TypeError: an argument has the wrong value or type; the text names it.

    Example:
        async with open_session() as session:
            result = await session.execute("1 + 1")
            assert result.value == 2
    """
    checked_config(config)
    session_id = checked_session_id(session_id)
    capabilities = checked_capabilities(capabilities)
    handlers = make_handlers(on_output, on_input, on_display)
    durability = durability_of(
        store,
        recovery,
        max_attempts,
        on_recovery,
        wait=wait,
        allow_weaker_confinement=allow_weaker_confinement,
    )
    check_policy(config, store)
    event_handlers = event_handlers_of(on_event)

    async def start() -> Session:
        fork_server = SharedForkServer()
        try:
            return await start_session(
                fork_server.launch,
                session_id,
                config,
                capabilities,
                handlers,
                durability=durability,
                release=fork_server.close,
                event_handlers=event_handlers,
            )
        except BaseException:
            fork_server.close()
            raise

    return SessionOpener(start)


def event_handlers_of(*handlers: EventHandler | None) -> tuple[EventHandler, ...]:
    """Return those of the handlers of events that there are.

    Raises:
        TypeError: one cannot be called.
    """
    return tuple(each for each in handlers if checked_callable("on_event", each) is not None and each)


def durability_of(
    store: str | os.PathLike[str] | None,
    recovery: RecoveryPolicy,
    max_attempts: int,
    on_recovery: RecoveryHandler | None,
    *,
    wait: float = 0.0,
    allow_weaker_confinement: bool = False,
) -> Durability:
    """Check the options of `open_session` for how a session survives.

    Raises:
        ValueError, TypeError: an argument has the wrong value or type.
        StoreError: `store` is no place where one can be.
    """
    wait = _checked_wait(wait)
    return Durability(
        open_journal=None if store is None else _journal_opener(store, wait),
        recovery=checked_choice("recovery", recovery, _POLICIES),
        max_attempts=_checked_attempts(max_attempts),
        on_recovery=checked_callable("on_recovery", on_recovery),
        allow_weaker_confinement=checked_bool("allow_weaker_confinement", allow_weaker_confinement),
    )


def where_kept(store: str | os.PathLike[str] | None) -> tuple[object, str]:
    """Return what tells a store from others, and why a session that is closed there is lost, if it is.

    Raises:
        StoreError, TypeError: `store` is no place where one can be.
    """
    if store is None:
        return None, "it has no store"
    from pyrepl3_client.durable import location as stores  # noqa: PLC0415 - few sessions have one

    location = stores.parse_location(store)
    if isinstance(location, stores.RemoteLocation):
        return location.url, ""
    if location.path == stores.IN_MEMORY:
        return location.path, "its store is in this process's memory, and ends with it"
    return os.path.realpath(location.path), ""


def check_policy(config: WorkerConfig, store: str | os.PathLike[str] | None = None) -> None:
    """Check that a policy lets code write to nothing that is run outside of its boundary, and to no store.

    Args:
        config: holds the policy.
        store: as for `open_session`.

    Raises:
        ValueError: a path of the policy is, holds or lies in such a thing; names both.
        StoreError, TypeError: `store` is no place where one can be.
    """
    if config.sandbox.writable:
        place, _ = where_kept(store)
        check_writable(config, place if isinstance(place, str) and os.path.isabs(place) else None)


def checked_session_id(session_id: str | None) -> str:
    """Return a session's id, one that is made up for None.

    Raises:
        ValueError: it is none.
    """
    return secrets.token_hex(8) if session_id is None else checked_id("session_id", session_id)


def checked_config(config: WorkerConfig) -> WorkerConfig:
    """Return a configuration as it is.

    Raises:
        TypeError: it is none; says where it belongs, if it is a part of one.
    """
    if not isinstance(config, WorkerConfig):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"config must be a WorkerConfig, not {shown(config)}{_where_it_goes(config)}")
    return config


def _where_it_goes(config: object) -> str:
    """Say where a part of a WorkerConfig belongs that is given in its place."""
    match config:
        case ExecutorConfig():
            field = "executor"
        case SandboxPolicy():
            field = "sandbox"
        case ResourceLimits():
            field = "limits"
        case _:
            return ""
    return f"; write config=WorkerConfig({field}=…)"


def _journal_opener(store: str | os.PathLike[str], wait: float) -> OpenJournal:
    from pyrepl3_client.durable.location import parse_location  # noqa: PLC0415 - few sessions have one

    parse_location(store)  # a wrong one is named at once

    async def open_journal(
        session_id: str,
        on_lost: Callable[[StoreError], None],
        on_trouble: OnTrouble,
        max_bytes: int | None,
    ) -> Journal:
        # Resonate takes a moment to import, and only sessions with a store need it.
        from pyrepl3_client.durable.stores import open_store  # noqa: PLC0415 - see above

        return await open_store(
            store, session_id, on_lost=on_lost, on_trouble=on_trouble, wait=wait, max_bytes=max_bytes
        )

    return open_journal


def _checked_wait(wait: float) -> float:
    seconds = as_float("wait", wait)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"wait must be a number of seconds, 0 or more, not {shown(wait)}")
    return seconds


def _checked_attempts(attempts: int) -> int:
    number = as_int("max_attempts", attempts)
    if number < 1:
        raise ValueError(f"max_attempts must be at least 1, not {shown(attempts)}")
    return number


def open_with(
    launch: Launch,
    session_id: str | None,
    config: WorkerConfig,
    capabilities: Capabilities | None,
    handlers: Handlers = NO_HANDLERS,
    *,
    durability: Durability = IN_MEMORY,
    event_handlers: Sequence[EventHandler] = (),
) -> SessionOpener:
    """Return what opens a session whose workers `launch` starts.

    Raises:
        CapabilityError, ValueError, TypeError: an argument has the wrong value or type.
    """
    name, offered = checked_session_id(session_id), checked_capabilities(capabilities)
    return SessionOpener(
        lambda: start_session(
            launch, name, config, offered, handlers, durability=durability, event_handlers=event_handlers
        )
    )


async def start_session(
    launch: Launch,
    session_id: str,
    config: WorkerConfig,
    capabilities: Capabilities,
    handlers: Handlers,
    *,
    durability: Durability,
    release: Callable[[], None] = lambda: None,
    event_handlers: Sequence[EventHandler] = (),
) -> Session:
    """Open a session whose workers `launch` starts; `release` is called when it is closed."""
    supervisor = await open_supervisor(
        launch, session_id, config, capabilities, handlers, durability, event_handlers
    )
    return await Session(supervisor, config, release).__aenter__()


async def open_supervisor(
    launch: Launch,
    session_id: str,
    config: WorkerConfig,
    capabilities: Capabilities,
    handlers: Handlers,
    durability: Durability,
    event_handlers: Sequence[EventHandler],
) -> SessionSupervisor:
    """Open the record, and start the session's supervisor.

    Raises:
        SpawnError, StoreError: as `open_session`; nothing is left then.
    """
    telemetry = Telemetry(session_id, event_handlers)
    try:
        return await _open_supervisor(
            launch, session_id, config, capabilities, handlers, durability, telemetry
        )
    except BaseException:
        await telemetry.close(config.close_grace)
        raise


async def _open_supervisor(
    launch: Launch,
    session_id: str,
    config: WorkerConfig,
    capabilities: Capabilities,
    handlers: Handlers,
    durability: Durability,
    telemetry: Telemetry,
) -> SessionSupervisor:
    began = asyncio.get_running_loop().time()
    lease = _LeaseLossRelay()
    journal = None
    if durability.open_journal is not None:
        journal = await durability.open_journal(
            session_id, lease.on_lost, telemetry.store_trouble, config.max_store_bytes
        )
    level = None
    try:
        if journal is not None:
            level = await RecordedLevel.read(
                journal, session_id, config, may_weaken=durability.allow_weaker_confinement
            )
        directory = OwnDirectory.make(config, session_id, None if journal is None else journal.store_path)
    except BaseException:
        if journal is not None:
            await wait_uncancelled(asyncio.get_running_loop().create_task(journal.close()))
        raise
    supervisor = SessionSupervisor(
        session_id, config, launch, capabilities, handlers, durability, journal, directory, telemetry
    )
    lease.relay_to(supervisor.on_lease_lost)
    await supervisor.start(began, level)
    return supervisor


class _LeaseLossRelay:
    """Passes on that another owner has taken the session, also when that happens before `relay_to`."""

    def __init__(self) -> None:
        self._error: StoreError | None = None
        self._handler: Callable[[StoreError], None] | None = None

    def on_lost(self, error: StoreError) -> None:
        self._error = error
        if self._handler is not None:
            self._handler(error)

    def relay_to(self, handler: Callable[[StoreError], None]) -> None:
        self._handler = handler
        if self._error is not None:
            handler(self._error)
