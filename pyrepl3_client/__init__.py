"""Run Python code in isolated worker processes: top-level await, live output, always cancellable.

The smallest complete program:

    import asyncio
    import pyrepl3_client as pyrepl3

    async def main():
        async with pyrepl3.open_session() as session:
            result = await session.execute("import asyncio; await asyncio.sleep(0, 42)")
            print(result.value)

    asyncio.run(main())

Begin with these; `help(pyrepl3_client.Session)`, and so on, says all of each:

    open_session   a namespace in a worker: `async with open_session() as session`, or `await` it
    Session        what that gives: execute, start, cancel, set, get, inspect, checkpoint, restart, close
    Execution      what `session.start` gives: iterate, await, cancel
    WorkerConfig   the worker's interpreter, surroundings and graces; with ExecutorConfig (limits of the
                   code), SandboxPolicy and ResourceLimits
    capability     describes how a host function may be called
    sync           the same without async: `help("pyrepl3_client.sync")`

For more:

    WorkerPool     sessions from workers that are warm already, a bounded number of them, also by name
    open_store     a store as a whole: its sessions, what they hold; delete, prune, compact, back up
    SessionFiles   `session.files`: read, write, list, remove, download, upload
    Recovery       what came back after a worker's death, and what did not: `session.recoveries`
    SessionEvent   what `on_event` gets: SpawnEvent, ReadyEvent, StopEvent, DeathEvent, RecoveryEvent,
                   CheckpointEvent, CallEvent, StoreEvent, NetworkEvent
    doctor         which confinement this machine can keep, and what to do for more: `print(doctor())`
    testing        ScriptedWorker, a worker whose answers a test decides

What comes back of code: ExecutionResult with ErrorInfo, and the messages Output, Display, Input, Call,
Result and Error of an Execution.

Errors, all under PyRepl3Error, say on whose side the fault lies:

    the code's     ExecutionFailed, with ExecutionTimeout and ExecutionCancelled
    the worker's   WorkerDied, with SpawnError; WorkerUnresponsive; ProtocolError
    the caller's   SessionClosed, with PoolClosed; ExecutionIdConflict; CapabilityError; TransferError;
                   OutputNotKept; SessionFileError, with SessionFileNotFound
    the pool's     PoolTimeout
    the store's    StoreError, with SessionBusy, LeaseLost, StoreBusy, BridgeTimeout, CheckpointTooLarge,
                   WeakerConfinement, StoreFull
    of a replay    ReplayDivergence

The guides are in the folder `docs` of the project. What follows here lists every public name.
"""

import sys

if sys.platform != "linux":  # before anything is imported that needs it
    raise ImportError(
        f"pyrepl3 runs on Linux only, and this system is {sys.platform!r}: it needs pidfd, PR_SET_PDEATHSIG "
        "and /proc. Use WSL2 on Windows, or a Linux container or virtual machine."
    )

from pyrepl3_client._doctor import Diagnosis, MachineCheck, doctor
from pyrepl3_client._execution.event_log import Event
from pyrepl3_client._execution.execution import Execution
from pyrepl3_client._execution.handlers import DisplayHandler, InputHandler, OutputHandler
from pyrepl3_client._execution.offers import CallContext, CallRequest, Capability, capability
from pyrepl3_client._execution.prompts import Prompt
from pyrepl3_client._files.actions import FileInfo
from pyrepl3_client._journal.protocol import BridgeMetrics
from pyrepl3_client._pool.pool import WorkerPool
from pyrepl3_client._pool.stats import KeptSession, PoolStats
from pyrepl3_client._session.files import SessionFiles
from pyrepl3_client._session.open import open_session
from pyrepl3_client._session.opener import SessionOpener
from pyrepl3_client._session.options import RecoveryHandler
from pyrepl3_client._session.recovery_bar import RecoveryBar
from pyrepl3_client._session.recovery_report import Recovery, RecoveryPolicy, RecoveryProgress, Skipped
from pyrepl3_client._session.run_texts import RunOutput
from pyrepl3_client._session.session import Session, WorkerInfo
from pyrepl3_client._store import (
    PrunedStore,
    Store,
    StoredCheckpoint,
    StoredExecution,
    StoredSession,
    open_store,
)
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
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client._version import __version__ as __version__
from pyrepl3_client._wire.connection import Interceptor
from pyrepl3_client.config import ResourceLimits, SandboxPolicy, WorkerConfig
from pyrepl3_client.errors import (
    BridgeTimeout,
    CapabilityError,
    CheckpointTooLarge,
    DeathCertificate,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionIdConflict,
    ExecutionTimeout,
    LeaseLost,
    OutputNotKept,
    PoolClosed,
    PoolTimeout,
    ProtocolError,
    PyRepl3Error,
    ReplayDivergence,
    SessionBusy,
    SessionClosed,
    SessionFileError,
    SessionFileNotFound,
    SpawnError,
    StoreBusy,
    StoreError,
    StoreFull,
    TransferError,
    WeakerConfinement,
    WorkerDied,
    WorkerUnresponsive,
)
from pyrepl3_client.results import Completeness, ErrorInfo, ExecutionResult
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.lifecycle import ExecutionState, SessionState
from pyrepl3_schemas.messages import (
    Call,
    Change,
    Changes,
    Checkpointed,
    Completions,
    Display,
    Error,
    FileChanges,
    Frame,
    Input,
    Inspection,
    Metrics,
    Output,
    Pong,
    Restored,
    Result,
    Unsaved,
    Variable,
)

__all__ = [
    "BridgeMetrics",
    "BridgeTimeout",
    "Call",
    "CallContext",
    "CallEvent",
    "CallRequest",
    "Capability",
    "CapabilityError",
    "Change",
    "Changes",
    "CheckpointEvent",
    "CheckpointTooLarge",
    "Checkpointed",
    "Completeness",
    "Completions",
    "DeathCertificate",
    "DeathEvent",
    "Diagnosis",
    "Display",
    "DisplayHandler",
    "Error",
    "ErrorInfo",
    "Event",
    "EventHandler",
    "Execution",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionIdConflict",
    "ExecutionResult",
    "ExecutionState",
    "ExecutionTimeout",
    "ExecutorConfig",
    "FileChanges",
    "FileInfo",
    "Frame",
    "Input",
    "InputHandler",
    "Inspection",
    "Interceptor",
    "KeptSession",
    "LeaseLost",
    "MachineCheck",
    "Metrics",
    "NetworkEvent",
    "Output",
    "OutputHandler",
    "OutputNotKept",
    "Pong",
    "PoolClosed",
    "PoolStats",
    "PoolTimeout",
    "Prompt",
    "ProtocolError",
    "PrunedStore",
    "PyRepl3Error",
    "ReadyEvent",
    "Recovery",
    "RecoveryBar",
    "RecoveryEvent",
    "RecoveryHandler",
    "RecoveryPolicy",
    "RecoveryProgress",
    "ReplayDivergence",
    "ResourceLimits",
    "Restored",
    "Result",
    "RunOutput",
    "SandboxPolicy",
    "Session",
    "SessionBusy",
    "SessionClosed",
    "SessionEvent",
    "SessionFileError",
    "SessionFileNotFound",
    "SessionFiles",
    "SessionOpener",
    "SessionState",
    "Skipped",
    "SpawnError",
    "SpawnEvent",
    "StopEvent",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoreEvent",
    "StoreFull",
    "StoredCheckpoint",
    "StoredExecution",
    "StoredSession",
    "TransferError",
    "Unsaved",
    "Variable",
    "WeakerConfinement",
    "WorkerConfig",
    "WorkerDied",
    "WorkerInfo",
    "WorkerPool",
    "WorkerUnresponsive",
    "capability",
    "doctor",
    "open_session",
    "open_store",
]
