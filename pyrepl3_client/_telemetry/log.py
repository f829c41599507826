"""Which logger, level and line each event has. Nothing is at WARNING or above while all is well."""

import logging
from typing import Final

from pyrepl3_client._log import ExcInfo, fields, write
from pyrepl3_client._telemetry.events import (
    CallEvent,
    CheckpointEvent,
    DeathEvent,
    NetworkEvent,
    ReadyEvent,
    RecoveryEvent,
    SessionEvent,
    SpawnEvent,
    StopEvent,
    StoreEvent,
)

WORKER_LOGGER: Final = logging.getLogger("pyrepl3.worker")
RECOVERY_LOGGER: Final = logging.getLogger("pyrepl3.recovery")
CHECKPOINT_LOGGER: Final = logging.getLogger("pyrepl3.checkpoint")
CALLS_LOGGER: Final = logging.getLogger("pyrepl3.calls")
STORE_LOGGER: Final = logging.getLogger("pyrepl3.store")
NETWORK_LOGGER: Final = logging.getLogger("pyrepl3.network")
HANDLERS_LOGGER: Final = logging.getLogger("pyrepl3.handlers")

for _logger in (WORKER_LOGGER, RECOVERY_LOGGER):
    # In a program that has not set up logging, Python prints warnings on stderr. A death that the session
    # survives is not for there: its results and `session.recoveries` tell of it.
    _logger.addHandler(logging.NullHandler())

DEBUG: Final = logging.DEBUG
INFO: Final = logging.INFO
WARNING: Final = logging.WARNING
ERROR: Final = logging.ERROR


def is_logged(logger: logging.Logger, level: int) -> bool:
    """Return whether anything comes of a line of that level."""
    return logger.isEnabledFor(level)


def log_event(event: SessionEvent, exc_info: ExcInfo | None = None) -> None:
    """Log an event: one line, once."""
    logger, level = _place(event)
    if not logger.isEnabledFor(level):
        return
    text, args = _line(event)
    execution: str | None = None
    if isinstance(event, DeathEvent | CallEvent | StoreEvent):
        execution = event.execution_id
    write(
        logger,
        level,
        text,
        *args,
        exc_info=exc_info,
        extra=fields(event.session_id, execution, event.worker, event),
    )


def _place(event: SessionEvent) -> tuple[logging.Logger, int]:
    match event:
        case SpawnEvent():
            return WORKER_LOGGER, DEBUG
        case ReadyEvent() | StopEvent():
            return WORKER_LOGGER, INFO
        case DeathEvent():
            return WORKER_LOGGER, WARNING
        case RecoveryEvent(state="started"):
            return RECOVERY_LOGGER, DEBUG
        case RecoveryEvent(state="failed"):
            return RECOVERY_LOGGER, ERROR
        case RecoveryEvent():
            return RECOVERY_LOGGER, INFO if event.is_whole else WARNING
        case CheckpointEvent(state="failed", automatic=True):
            return CHECKPOINT_LOGGER, WARNING
        case CheckpointEvent():
            # One that was asked for and failed is raised where it was asked for.
            return CHECKPOINT_LOGGER, DEBUG
        case CallEvent(outcome="error"):
            return CALLS_LOGGER, WARNING
        case CallEvent(outcome="refused"):
            return CALLS_LOGGER, INFO
        case CallEvent():
            return CALLS_LOGGER, DEBUG
        case StoreEvent():
            return STORE_LOGGER, ERROR if event.lost else WARNING
        case NetworkEvent():
            return NETWORK_LOGGER, DEBUG if event.outcome == "ok" else INFO


def _line(event: SessionEvent) -> tuple[str, tuple[object, ...]]:
    session = event.session_id
    match event:
        case SpawnEvent():
            how = "was taken from its pool" if event.warm else "was started"
            return "worker %d of session %r %s", (event.worker, session, how)
        case ReadyEvent():
            return "worker %d of session %r is ready after %.3f s", (event.worker, session, event.seconds)
        case StopEvent():
            return "worker %d of session %r has ended: %s", (event.worker, session, event.reason)
        case DeathEvent(session_id=""):
            return "%s", (event.certificate,)
        case DeathEvent():
            return "session %r: %s", (session, event.certificate)
        case RecoveryEvent(state="started"):
            return "session %r comes back", (session,)
        case RecoveryEvent(state="failed"):
            return "session %r could not come back: %s", (session, event.summary)
        case RecoveryEvent():
            return "session %r is back: %s", (session, event.summary)
        case CheckpointEvent(state="failed"):
            how = "an automatic checkpoint failed" if event.automatic else "a checkpoint failed"
            return how + " in session %r: %s", (session, event.message)
        case CheckpointEvent():
            return "checkpoint %r of session %r was taken in %.3f s: %d new bytes, %d names not saved", (
                event.checkpoint_id,
                session,
                event.seconds,
                event.size,
                len(event.unsaved),
            )
        case CallEvent(outcome="error"):
            return "host function %r raised %s (call %r)", (event.name, event.error_type, event.call_id)
        case CallEvent(outcome="refused"):
            return "call %r was refused: %s", (event.call_id, event.message)
        case CallEvent():
            return "host function %r: %s after %.3f s (call %r)", (
                event.name,
                event.outcome,
                event.seconds,
                event.call_id,
            )
        case StoreEvent():
            return "session %r: %s: %s", (session, event.what, event.message)
        case NetworkEvent():
            why = f": {event.message}" if event.message else ""
            return "session %r: %s %s:%d: %s after %.3f s, %d bytes sent, %d received%s", (
                session,
                event.method or "no request",
                event.host,
                event.port,
                event.outcome,
                event.seconds,
                event.sent,
                event.received,
                why,
            )
