"""Run Python code in isolated worker processes: top-level await, live output, always cancellable.

    open_session   a namespace in a worker: execute, start, cancel, inspect, restart
    WorkerPool     sessions from workers that are warm already
    Execution      the handle of submitted code: iterate, await, cancel
    capability     describes how a host function may be called
    WorkerConfig   interpreter, surroundings, graces; ExecutorConfig: limits of the code
    errors         all under PyRepl3Error; the type says which side was at fault
    sync           the same without async
    testing        ScriptedWorker, a worker whose answers a test decides

The smallest complete program:

    import asyncio
    import pyrepl3_client as pyrepl3

    async def main():
        async with pyrepl3.open_session() as session:
            result = await session.execute("import asyncio; await asyncio.sleep(0, 42)")
            print(result.value)

    asyncio.run(main())
"""

import sys

if sys.platform != "linux":  # before anything is imported that needs it
    raise ImportError(
        f"pyrepl3 runs on Linux only, and this system is {sys.platform!r}: it needs pidfd, PR_SET_PDEATHSIG "
        "and /proc. Use WSL2 on Windows, or a Linux container or virtual machine."
    )

from pyrepl3_client._execution.event_log import Event
from pyrepl3_client._execution.execution import Execution
from pyrepl3_client._execution.handlers import DisplayHandler, InputHandler, OutputHandler
from pyrepl3_client._execution.offers import CallContext, CallRequest, Capability, capability
from pyrepl3_client._execution.prompts import Prompt
from pyrepl3_client._journal.protocol import BridgeMetrics
from pyrepl3_client._pool import WorkerPool
from pyrepl3_client._session.open import open_session
from pyrepl3_client._session.options import RecoveryHandler
from pyrepl3_client._session.recovery_bar import RecoveryBar
from pyrepl3_client._session.recovery_report import Recovery, RecoveryPolicy, RecoveryProgress, Skipped
from pyrepl3_client._session.session import Session, WorkerInfo
from pyrepl3_client._version import __version__ as __version__
from pyrepl3_client._wire.connection import Interceptor
from pyrepl3_client.config import ResourceLimits, SandboxPolicy, WorkerConfig
from pyrepl3_client.errors import (
    CapabilityError,
    DeathCertificate,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionIdConflict,
    ExecutionTimeout,
    OutputNotKept,
    ProtocolError,
    PyRepl3Error,
    ReplayDivergence,
    SessionClosed,
    SpawnError,
    StoreError,
    TransferError,
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
    "Call",
    "CallContext",
    "CallRequest",
    "Capability",
    "CapabilityError",
    "Change",
    "Changes",
    "Checkpointed",
    "Completeness",
    "Completions",
    "DeathCertificate",
    "Display",
    "DisplayHandler",
    "Error",
    "ErrorInfo",
    "Event",
    "Execution",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionIdConflict",
    "ExecutionResult",
    "ExecutionState",
    "ExecutionTimeout",
    "ExecutorConfig",
    "Frame",
    "Input",
    "InputHandler",
    "Inspection",
    "Interceptor",
    "Metrics",
    "Output",
    "OutputHandler",
    "OutputNotKept",
    "Pong",
    "Prompt",
    "ProtocolError",
    "PyRepl3Error",
    "Recovery",
    "RecoveryBar",
    "RecoveryHandler",
    "RecoveryPolicy",
    "RecoveryProgress",
    "ReplayDivergence",
    "ResourceLimits",
    "Restored",
    "Result",
    "SandboxPolicy",
    "Session",
    "SessionClosed",
    "SessionState",
    "Skipped",
    "SpawnError",
    "StoreError",
    "TransferError",
    "Unsaved",
    "Variable",
    "WorkerConfig",
    "WorkerDied",
    "WorkerInfo",
    "WorkerPool",
    "WorkerUnresponsive",
    "capability",
    "open_session",
]
