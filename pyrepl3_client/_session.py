"""A session: one namespace, in one worker at a time, and what its owner can do with it."""

import asyncio
import contextvars
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from pyrepl3_client._connection import Interceptor
from pyrepl3_client._execution import Execution, InputHandler, OutputHandler
from pyrepl3_client._flight import Capabilities, Flight
from pyrepl3_client._incarnation import Incarnation
from pyrepl3_client._nursery import Nursery
from pyrepl3_client._patience import finish
from pyrepl3_client._questions import Questions, checked_id
from pyrepl3_client._worker import Launch
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SessionClosed, SpawnError, WorkerDied
from pyrepl3_client.results import ExecutionResult
from pyrepl3_schemas.lifecycle import SessionState, move_session
from pyrepl3_schemas.messages import (
    CancelReason,
    Execute,
    Hello,
    Ready,
    ResultMode,
)
from pyrepl3_schemas.version import PROTOCOL

_RESULT_MODES: Final = frozenset(get_args(ResultMode.__value__))
_REASONS: Final = frozenset(get_args(CancelReason.__value__))


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The worker a session has now, or had last."""

    pid: int
    incarnation: int
    """1 for the session's first worker, one more for each after it."""
    python: str
    """Its interpreter's version."""
    features: tuple[str, ...]
    confinement: tuple[str, ...]
    """What keeps its code in bounds, as far as it is really in force."""


class Session(Questions):
    """A namespace that lives in a worker process. Made by `open_session`, not by hand.

    Executions run one after another, in the order of `start` and `execute`. Everything is to be called
    on the event loop that the session was opened on; `pyrepl3_client.sync` is for other threads.
    """

    def __init__(
        self,
        session_id: str | None,
        config: WorkerConfig,
        launch: Launch,
        capabilities: Capabilities | None,
        on_output: OutputHandler | None,
        on_input: InputHandler | None,
    ) -> None:
        """Check what was given; `begin` starts the worker.

        Raises:
            ValueError: the session id is empty or holds a colon.
            CapabilityError: a capability cannot be offered.
        """
        super().__init__(self._ready_worker)
        self.session_id = checked_id("session_id", session_id or secrets.token_hex(8))
        self.interceptors: list[Interceptor] = []
        """Called with every message from the worker, before it is routed. For bridges."""
        self._config = config
        self._launch = launch
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._nursery = Nursery(self.session_id)
        self._flight = Flight(
            config, self._nursery, capabilities or {}, on_output, on_input, lambda: self._worker().connection
        )
        self._state = SessionState.STARTING
        self._incarnation: Incarnation | None = None
        self._incarnations = 0
        self._prefix = f"{secrets.token_hex(4)}-"
        self._submitted = 0
        self._starting = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show id, state and worker."""
        number = "" if self._incarnation is None else f" worker {self._incarnation.pid}"
        return f"<Session {self.session_id!r} {self._state.value}{number}>"

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._state

    @property
    def worker(self) -> WorkerInfo:
        """The worker the session has now, or had last."""
        incarnation = self._worker()
        ready = incarnation.ready or Ready(
            protocol=PROTOCOL, pid=incarnation.pid, python="", max_frame_bytes=0
        )
        return WorkerInfo(
            incarnation.pid, incarnation.number, ready.python, tuple(ready.features), tuple(ready.confinement)
        )

    @property
    def recoveries(self) -> tuple[object, ...]:
        """One report for each recovery from a worker's death, oldest first."""
        return ()

    # --- executing -----------------------------------------------------------------------------------

    def start(
        self,
        code: str,
        *,
        execution_id: str | None = None,
        timeout: float | None = None,
        result_mode: ResultMode = "last_expr_or_assign",
        on_output: OutputHandler | None = None,
        on_input: InputHandler | None = None,
        check: bool = True,
    ) -> Execution:
        """Submit code and give its handle. It runs when what was submitted before it has ended.

        Args:
            code: Python source; `await` works at its top level.
            execution_id: names the execution; without a colon. One is made up by default.
            timeout: seconds the code may run, from its beginning; it overrides `max_execution_time`.
            result_mode: whose value is the result's: `last_expr_or_assign`, `last_expr` or `none`.
            on_output: gets each `Output` of this execution, beside the session's own handler.
            on_input: answers this execution's prompts instead of the session's own handler.
            check: whether `result()` raises when the code failed.

        Raises:
            WorkerDied: the session's worker is dead; `restart` gives another.
            SessionClosed: the session is closed.
            ExecutionIdConflict: an execution of that id is in flight.
            ProtocolError: the code cannot be sent: lone surrogates, or longer than a frame.
            ValueError, TypeError: an argument means nothing.
        """
        return self._submit(
            code, execution_id, timeout, result_mode, on_output, on_input, check=check, keep=True
        )

    async def execute(
        self,
        code: str,
        *,
        execution_id: str | None = None,
        timeout: float | None = None,
        result_mode: ResultMode = "last_expr_or_assign",
        on_output: OutputHandler | None = None,
        on_input: InputHandler | None = None,
        check: bool = True,
    ) -> ExecutionResult:
        """Run code and wait for its outcome. See `start` for the arguments.

        Cancelling the waiting task cancels the execution; it then returns when the worker is free for
        others, or has been killed since the code would not stop.

        Raises:
            ExecutionFailed: the code failed; with subclasses ExecutionTimeout and ExecutionCancelled.
            WorkerDied: the worker ended first.
            SessionClosed: the session was closed first.
            Exception: what `on_output` raised.
        """
        execution = self._submit(
            code, execution_id, timeout, result_mode, on_output, on_input, check=check, keep=False
        )
        return await execution.run_through()

    def _submit(
        self,
        code: str,
        execution_id: str | None,
        timeout: float | None,
        result_mode: ResultMode,
        on_output: OutputHandler | None,
        on_input: InputHandler | None,
        *,
        check: bool,
        keep: bool,
    ) -> Execution:
        if self._state is not SessionState.READY:
            raise self._unusable()
        if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"code must be a string, not {type(code).__name__}")
        if execution_id is None:
            self._submitted += 1
            execution_id = f"{self._prefix}{self._submitted}"
        else:
            checked_id("execution_id", execution_id)
        if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"timeout must be a positive number of seconds or None, not {timeout!r}")
        if result_mode not in _RESULT_MODES:
            raise ValueError(f"result_mode must be one of {sorted(_RESULT_MODES)}, not {result_mode!r}")
        execution = Execution(
            self._flight, execution_id, code, timeout, on_output, on_input, check=check, keep=keep
        )
        self._flight.submit(
            execution,
            Execute(execution_id=execution_id, code=code, timeout=timeout, result_mode=result_mode),
            self._config.executor.max_execution_time if timeout is None else timeout,
        )
        return execution

    async def cancel(self, reason: CancelReason = "cancelled") -> bool:
        """Stop what runs now and wait until it is over; say whether anything ran. See `Execution.cancel`."""
        if reason not in _REASONS:
            raise ValueError(f"reason must be one of {sorted(_REASONS)}, not {reason!r}")
        execution = self._flight.first
        if execution is None:
            return False
        await execution.cancel(reason)
        return True

    # --- life ----------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Start a worker and wait until it is ready. For whoever made the session.

        Raises:
            SpawnError: there is none to be had.
        """
        self._incarnations += 1
        hello = Hello(
            protocol=PROTOCOL,
            session_id=self.session_id,
            incarnation=self._incarnations,
            config=self._config.executor,
            capabilities=self._flight.calls.specs,
        )
        try:
            while not await self._greet(hello):
                pass
        except BaseException:
            self._give_up_start()
            raise
        self._expect_starting()
        self._move(SessionState.READY)

    async def _greet(self, hello: Hello) -> bool:
        """Have a worker, and wait until it is ready; say whether it is.

        It is not when it had waited in a pool and died there: there may be another.
        """
        self._expect_starting()
        worker = self._launch(self._config)
        waited = bool(worker.ends.sent)
        incarnation = self._incarnation = Incarnation(
            worker, hello, self._flight, self.interceptors, self._context, self._on_end
        )
        try:
            await incarnation.wait_ready(self._config.spawn_timeout)
        except SpawnError:
            if not waited:
                raise
            return False
        except BaseException:
            await finish(self._loop.create_task(incarnation.destroy("its start was given up")))
            raise
        return True

    async def restart(self) -> None:
        """End the worker, whatever it does, and start a fresh one with an empty namespace.

        What is in flight fails with WorkerDied.

        Raises:
            SessionClosed: the session is closed.
            SpawnError: no new worker is to be had; the session stays dead.
        """
        async with self._starting:
            if self._state not in (SessionState.READY, SessionState.DEAD):
                raise self._unusable()
            self._move(SessionState.STARTING)
            old = self._worker()
            self._abandon(lambda running: old.death(running, "the session was restarted"))
            try:
                await old.stop("restart", self._config.close_grace)
            except BaseException:
                await finish(self._loop.create_task(old.destroy("a restart was given up")))
                self._give_up_start()
                raise
            self._expect_starting()
            await self.begin()

    async def close(self) -> None:
        """End the session and everything that belongs to it. Idempotent; `open_session` calls it.

        What is in flight fails with SessionClosed. Host functions are cancelled and waited for.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name=f"close {self.session_id}")
        await finish(self._closing)

    async def _close(self) -> None:
        grace = self._config.close_grace
        self._move(SessionState.CLOSING)
        self._abandon(lambda _: SessionClosed(f"session {self.session_id!r} was closed"))
        try:
            if self._incarnation is not None:
                await self._incarnation.stop("the session was closed", grace)
            await self._flight.close(grace)
            await self._nursery.close(grace)
        finally:
            self._move(SessionState.CLOSED)

    # --- odds and ends -------------------------------------------------------------------------------

    def _move(self, state: SessionState) -> None:
        self._state = move_session(self._state, state)

    def _give_up_start(self) -> None:
        # It may be closing by now.
        if self._state is SessionState.STARTING:
            self._move(SessionState.DEAD)

    def _expect_starting(self) -> None:
        if self._state is not SessionState.STARTING:
            raise self._unusable()

    def _worker(self) -> Incarnation:
        if self._incarnation is None:
            raise SpawnError(f"session {self.session_id!r} has no worker")
        return self._incarnation

    def _ready_worker(self) -> Incarnation:
        if self._state is not SessionState.READY:
            raise self._unusable()
        return self._worker()

    def _unusable(self) -> Exception:
        if self._state in (SessionState.CLOSING, SessionState.CLOSED):
            return SessionClosed(f"session {self.session_id!r} is closed")
        if self._state is SessionState.STARTING:
            return WorkerDied(f"session {self.session_id!r} is getting a new worker and has none yet")
        if self._incarnation is None:
            return WorkerDied(f"session {self.session_id!r} has no worker")
        return self._incarnation.death(reason="restart() gives the session a fresh one")

    def _on_end(self, incarnation: Incarnation) -> None:
        if incarnation is self._incarnation and self._state is SessionState.READY:
            self._move(SessionState.DEAD)
            self._abandon(incarnation.death)

    def _abandon(self, error: Callable[[tuple[str, ...]], BaseException]) -> None:
        """Fail all that waits for the worker, each with an error of its own."""
        running = self._flight.running
        if self._incarnation is not None:
            self._incarnation.requests.fail_all(lambda: error(running))
        self._flight.fail_all(lambda: error(running))
