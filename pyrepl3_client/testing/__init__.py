r"""A scripted worker that runs no code, for tests of programs that use this library.

    worker = ScriptedWorker()

    @worker.script("greet()")
    async def greet(run):
        run.print(f"hello {await run.input('name? ')}\n")
        return 42

    async with testing.open_session(worker, on_input=lambda prompt: "Ada") as session:
        result = await session.execute("greet()")
        assert (result.value, result.stdout) == (42, "hello Ada\n")

It speaks the real protocol over real pipes, on the event loop of the session: the whole client is
exercised, and no process is started.
"""

import asyncio
import os
from collections.abc import Callable

from pyrepl3_client._execution.handlers import DisplayHandler, Handlers, InputHandler, OutputHandler
from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._launch.worker import Worker
from pyrepl3_client._session.open import DEFAULT_CONFIG, event_handlers_of, open_with
from pyrepl3_client._session.opener import SessionOpener
from pyrepl3_client._session.options import Durability, RecoveryHandler
from pyrepl3_client._session.recovery_report import RecoveryPolicy
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.testing.scripted_process import CallFailed, Run, Script, ScriptedProcess
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.messages import Ready, ToWorker

__all__ = ["CallFailed", "Run", "Script", "ScriptedProcess", "ScriptedWorker", "open_session"]


class ScriptedWorker:
    """Runs scripts instead of code. One object serves all incarnations of one session."""

    def __init__(self) -> None:
        """Begin without scripts: code that has none is a NameError."""
        self.received: list[ToWorker] = []
        """Every message from the client, of all incarnations."""
        self.wakeup_signals = 0
        """How many wake-up signals the client has sent."""
        self.unanswered: set[type[ToWorker]] = set()
        """Types of messages that get no answer; `Hello` may be one."""
        self.ready = Ready(protocol=PROTOCOL, pid=os.getpid(), python="scripted", max_frame_bytes=2**26)
        """The answer to `hello`."""
        self.processes: list[ScriptedProcess] = []
        """The scripted processes, one for each incarnation."""
        self._scripts: dict[str, Script] = {}
        self._waiters: list[tuple[type[ToWorker], int, asyncio.Future[None]]] = []

    def script(self, code: str) -> Callable[[Script], Script]:
        """Return a decorator for the script that runs when `code` is executed.

        Args:
            code: the exact text of the execution's code.
        """

        def add(script: Script) -> Script:
            self._scripts[code] = script
            return script

        return add

    def script_for(self, code: str) -> Script:
        """Return the script of `code`; for code without one, a script that raises NameError.

        Args:
            code: the exact text of the execution's code.
        """
        script = self._scripts.get(code)
        return _no_script if script is None else script

    @property
    def process(self) -> "ScriptedProcess":
        """The scripted process of the present incarnation."""
        return self.processes[-1]

    def launch(self, config: WorkerConfig) -> Worker:
        """Begin an incarnation. A session calls this instead of starting a process.

        Args:
            config: what a process would be started with.

        Returns:
            The scripted process.
        """
        process = ScriptedProcess(self)
        self.processes.append(process)
        return process

    async def wait_for[T: ToWorker](self, kind: type[T], count: int = 1) -> T:
        """Wait until messages of a type have come, and return the last of these.

        Args:
            kind: the type.
            count: how many, counted from the beginning, over all incarnations.
        """
        matching = [message for message in self.received if isinstance(message, kind)]
        if len(matching) < count:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((kind, count, waiter))
            await waiter
            matching = [message for message in self.received if isinstance(message, kind)]
        return matching[count - 1]

    def note(self, message: ToWorker) -> None:
        """Record a message that has come, and wake the callers of `wait_for`.

        Args:
            message: what the client has sent.
        """
        self.received.append(message)
        for kind, count, waiter in list(self._waiters):
            if not waiter.done() and sum(isinstance(m, kind) for m in self.received) >= count:
                waiter.set_result(None)


async def _no_script(run: Run) -> object:
    raise NameError(f"no script for {run.message.code!r}")


def open_session(
    worker: ScriptedWorker,
    session_id: str | None = None,
    *,
    config: WorkerConfig = DEFAULT_CONFIG,
    capabilities: Capabilities | None = None,
    on_output: OutputHandler | None = None,
    on_input: InputHandler | None = None,
    on_display: DisplayHandler | None = None,
    recovery: RecoveryPolicy = "auto",
    max_attempts: int = 3,
    on_recovery: RecoveryHandler | None = None,
    on_event: EventHandler | None = None,
) -> SessionOpener:
    """Open a session whose worker is a scripted one.

    Args:
        worker: answers in the place of a real worker.
        session_id: the session's id; None makes one up.
        config: as for a real worker; no process is started with it.
        capabilities: host functions by name.
        on_output: called with each piece of output.
        on_input: answers `input()`.
        on_display: called with each display.
        recovery: what happens when the worker dies.
        max_attempts: how many workers one execution may take.
        on_recovery: called after each recovery.
        on_event: called with each event.

    Raises:
        SpawnError: the scripted worker ended before it was ready, or did not answer `hello` in time.
        CapabilityError: a capability cannot be offered.
        ValueError: `session_id` or `max_attempts` is not allowed.
    """
    durability = Durability(recovery=recovery, max_attempts=max_attempts, on_recovery=on_recovery)
    handlers = Handlers(on_output, on_input, on_display)
    return open_with(
        worker.launch,
        session_id,
        config,
        capabilities,
        handlers,
        durability=durability,
        event_handlers=event_handlers_of(on_event),
    )
