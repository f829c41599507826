"""The public face of a session: one namespace, in one worker at a time.

The file is long since every method is described where its user looks.
"""

import asyncio
import secrets
import warnings
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from pyrepl3_client._concurrency.exit_guard import ExitGuard
from pyrepl3_client._concurrency.owner import Owner
from pyrepl3_client._execution.execution import CANCEL_REASONS, Execution
from pyrepl3_client._execution.handlers import (
    NO_HANDLERS,
    DisplayHandler,
    Handlers,
    InputHandler,
    OutputHandler,
    make_handlers,
)
from pyrepl3_client._execution.kept_output import checked_part
from pyrepl3_client._execution.offers import Capability
from pyrepl3_client._execution.record import ExecutionRecord, watch_execution
from pyrepl3_client._execution.serving import current_served, refuse_own_session
from pyrepl3_client._journal.protocol import BridgeMetrics, OnError, Spec
from pyrepl3_client._session.file_access import FileAccess
from pyrepl3_client._session.files import SessionFiles
from pyrepl3_client._session.output_reader import OutputReader
from pyrepl3_client._session.queries import WorkerQueries
from pyrepl3_client._session.recovery_report import Recovery
from pyrepl3_client._session.run_texts import RunOutput, checked_run
from pyrepl3_client._session.submission import checked_spec
from pyrepl3_client._session.supervisor import SessionSupervisor
from pyrepl3_client._session.variables import DEFAULT_MAX_BYTES, SILENCE_SECONDS, SessionVariables
from pyrepl3_client._wire.connection import Interceptor
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client.config import WorkerConfig, checked_bool, checked_choice, checked_id, checked_seconds
from pyrepl3_client.results import Completeness, ExecutionResult
from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.lifecycle import SessionState
from pyrepl3_schemas.messages import (
    CancelReason,
    Checkpointed,
    Completions,
    Inspection,
    Metrics,
    Pong,
    Ready,
    Restored,
    ResultMode,
    StreamName,
    Variable,
)

_TURNS_FOR_OWNERS: Final = 10
"""Turns of an ending loop in which a generator of the user's may still close the session that it holds."""
_READY: Final = SessionState.READY  # read once: a member of an enumeration is looked up in its metaclass too


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
    """The parts of the confinement that are in force."""


class Session:
    """A namespace that lives in a worker process. Made by `open_session`.

    Executions run one after another, in the order of `start` and `execute`. Everything is to be called
    on the event loop that the session was opened on; `pyrepl3_client.sync` is for other threads.
    """

    def __init__(
        self,
        supervisor: SessionSupervisor,
        config: WorkerConfig,
        release: Callable[[], None] | None = None,
    ) -> None:
        """Show the session that `supervisor` keeps alive; `open_session` makes both.

        `release` is called when the session has been closed.
        """
        self._supervisor = supervisor
        self._release = release
        self._owner = Owner(f"session {supervisor.session_id!r}")
        self._guard = ExitGuard(self._not_closed, supervisor.kill_worker)
        self._loop_end = self._close_at_loop_end()
        self._loop_ends = False
        self._watches_loop = False
        self._queue = supervisor.queue
        self._telemetry = supervisor.telemetry
        self._close_grace = config.close_grace
        self._recorder = supervisor.recorder
        self._checkpoints = supervisor.checkpoints
        self._queries = WorkerQueries(self._ready_worker)
        self._output_reader = OutputReader(self._queue, self._recorder)
        self._max_execution_time = config.executor.max_execution_time
        self._id_prefix = f"{secrets.token_hex(4)}-"
        self._ids_made = 0
        self._variables = SessionVariables(self._queue, self._submit_setting, self._ready_worker)
        self._file_access = FileAccess(supervisor, config, self._owner)
        self._files = SessionFiles(self._file_access)
        self._close_grace = config.close_grace

    def __repr__(self) -> str:
        """Show id, state and worker."""
        worker = self._supervisor.worker
        number = "" if worker is None else f" worker {worker.pid}"
        return f"<Session {self.session_id!r} {self.state.value}{number}>"

    @property
    def _not_closed(self) -> str:
        return f"session {self.session_id!r} was never closed"

    async def _close_at_loop_end(self) -> AsyncGenerator[None]:
        # What a loop tells of its end are the asynchronous generators that have begun.
        try:
            yield
        finally:
            self._loop_ends = True
            for _ in range(_TURNS_FOR_OWNERS):
                if self._is_closed:
                    break
                await asyncio.sleep(0)
            else:
                await self._close()
                warnings.warn(f"{self._not_closed}; its event loop ends", ResourceWarning, stacklevel=2)

    @property
    def _is_closed(self) -> bool:
        return self._supervisor.state in (SessionState.CLOSING, SessionState.CLOSED)

    async def __aenter__(self) -> Self:
        """Return the session, which leaving the context closes.

        The event loop closes it at its end (`asyncio.run` has one), if it was not closed until then.

        Raises:
            SessionClosed: it is closed already.
        """
        self._owner.check()
        self._refuse_closed()
        if not self._watches_loop:
            self._watches_loop = True
            await anext(self._loop_end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session. In a forked child, whose session it is not, do nothing."""
        if self._owner.is_this_process:
            await self.close()

    def __enter__(self) -> NoReturn:
        """Say that it is entered by `async with`."""
        raise TypeError(
            f"session {self.session_id!r} is asynchronous: write `async with`, or take pyrepl3_client.sync, "
            "whose sessions are entered by `with`"
        )

    def __exit__(self, *_: object) -> None:
        """Be there for `with`, which looks for this first."""

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._supervisor.session_id

    @property
    def interceptors(self) -> list[Interceptor]:
        """Functions that see each message from the worker, in order, before the session handles it.

        The one way to see messages, for bridges, telemetry and adapters: add a function to the list, or
        remove it, at any time; the next message is the first that it sees, or the last that it saw. It is
        called on the session's event loop with the decoded message, and must return at once. Returning
        True keeps the message from the session (with a `Result` or `Error` of an execution, that execution
        waits on); each function sees it all the same. What it raises is logged, and the session goes on.

        A message comes as the worker sent it: whether its ids and its order make sense is checked after
        this. What the client sends is not shown. An empty list costs nothing.

        The bridge to a store does not need this: it settles an execution's promise with the recorded
        outcome, which has the execution's output too, on the same loop.
        """
        return self._supervisor.interceptors

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._supervisor.state

    @property
    def worker(self) -> WorkerInfo:
        """The worker the session has now, or had last."""
        worker = self._supervisor.require_worker()
        ready = worker.ready or Ready(protocol=PROTOCOL, pid=worker.pid, python="", max_frame_bytes=0)
        return WorkerInfo(
            worker.pid, worker.number, ready.python, tuple(ready.features), tuple(ready.confinement)
        )

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """One report for each time the session came back, oldest first."""
        return tuple(self._supervisor.recoveries)

    @property
    def bridge(self) -> BridgeMetrics | None:
        """What the bridge to the store has done since the session was opened; None without a store."""
        return self._recorder.metrics

    @property
    def files(self) -> SessionFiles:
        """The session's files: read, write, list, remove, download, upload; also while code runs."""
        return self._files

    # --- executing -----------------------------------------------------------------------------------

    def start(
        self,
        code: str,
        *,
        execution_id: str | None = None,
        timeout: float | None = None,
        result_mode: ResultMode = "last_expr_or_assign",
        filename: str | PathLike[str] | None = None,
        first_line: int = 1,
        on_error: OnError = "continue",
        on_output: OutputHandler | None = None,
        on_input: InputHandler | None = None,
        on_display: DisplayHandler | None = None,
        check: bool = True,
    ) -> Execution:
        """Submit code. It runs when everything submitted before it has ended.

        Args:
            code: Python source; `await` works at its top level.
            execution_id: names the execution; without a colon. One is made up by default.
            timeout: seconds the code may run, from its beginning; it overrides `max_execution_time`.
            result_mode: whose value is the result's: `last_expr_or_assign`, `last_expr` or `none`.
            filename: the file that the code is from, for tracebacks and `inspect`. It need not exist.
            first_line: the number that the code's first line has there.
            on_error: `stop_queue` ends what is queued behind this execution if it fails, without running it.
            on_output: gets each `Output` of this execution, beside the session's own handler.
            on_input: answers this execution's prompts instead of the session's own handler.
            on_display: gets each `Display` of this execution, beside the session's own handler.
            check: whether `result()` raises when the code failed.

        Returns:
            Its handle; for an `execution_id` that is under way, a handle of that execution.

        Raises:
            WorkerDied: the session's worker is dead; `restart` starts another.
            SessionClosed: the session is closed.
            ExecutionIdConflict: the id stands for other code in this session. With a store, whether it does
                has to be looked up: `result()` raises it then.
            ProtocolError: the code cannot be sent: lone surrogates, or longer than a frame.
            CapabilityError: a host function or handler asks for it that this session's code waits for.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        spec = checked_spec(code, timeout, result_mode, filename, first_line, on_error)
        handlers = make_handlers(on_output, on_input, on_display)
        return Execution(self._submit(execution_id, spec, handlers, check=check, keep=True))

    async def execute(
        self,
        code: str,
        *,
        execution_id: str | None = None,
        timeout: float | None = None,
        result_mode: ResultMode = "last_expr_or_assign",
        filename: str | PathLike[str] | None = None,
        first_line: int = 1,
        on_error: OnError = "continue",
        on_output: OutputHandler | None = None,
        on_input: InputHandler | None = None,
        on_display: DisplayHandler | None = None,
        check: bool = True,
    ) -> ExecutionResult:
        """Run code and wait for its outcome.

        Cancelling the waiting task cancels the execution; the wait then ends when the worker is free for
        other executions, or has been killed since the code did not stop.

        Args:
            code: as for `start`, and so are the others.
            execution_id: names the execution. One that is on record is not run again: its outcome returns.
            timeout: seconds the code may run, from its beginning.
            result_mode: whose value is the result's.
            filename: the file that the code is from.
            first_line: the number that the code's first line has there.
            on_error: `stop_queue` ends what is queued behind this execution if it fails.
            on_output: gets each `Output` of this execution.
            on_input: answers this execution's prompts.
            on_display: gets each `Display` of this execution.
            check: whether to raise when the code failed.

        Returns:
            The outcome, with what the code wrote and displayed.

        Raises:
            ExecutionFailed: the code failed; with subclasses ExecutionTimeout and ExecutionCancelled.
            WorkerDied: the worker ended first; with `check=False` that is an error of kind `died`.
            SessionClosed: the session was closed first.
            CapabilityError: a host function or handler asks for it that this session's code waits for.
            Exception: what `on_output` or `on_display` raised.
        """
        spec = checked_spec(code, timeout, result_mode, filename, first_line, on_error)
        handlers = make_handlers(on_output, on_input, on_display)
        execution = self._submit(execution_id, spec, handlers, check=check, keep=False)
        return await execution.wait_or_cancel(check=check)

    def _submit(
        self,
        execution_id: str | None,
        spec: Spec,
        handlers: Handlers,
        *,
        check: bool,
        keep: bool,
    ) -> ExecutionRecord:
        self._owner.check()
        supervisor = self._supervisor
        if supervisor.state is not _READY and not supervisor.recovering:
            raise supervisor.unusable_error()
        if check is not True and check is not False:
            checked_bool("check", check)
        named = execution_id is not None
        if execution_id is None:
            self._ids_made += 1
            execution_id = f"{self._id_prefix}{self._ids_made}"
        else:
            checked_id("execution_id", execution_id)
        if current_served() is not None:
            refuse_own_session(self._queue, "execution", execution_id)
        execution = self._recorder.submit(
            execution_id,
            spec,
            self._max_execution_time if spec.timeout is None else spec.timeout,
            handlers,
            check=check,
            keep=keep,
            named=named,
        )
        if self._telemetry.spans is not None:
            watch_execution(self._telemetry, execution)
        return execution

    def _submit_setting(self, code: str) -> ExecutionRecord:
        spec = Spec(code, result_mode="none", store_history=False)
        return self._submit(None, spec, NO_HANDLERS, check=True, keep=False)

    async def cancel(self, reason: CancelReason = "cancelled") -> bool:
        """Stop the execution that runs now and wait until it is over.

        Args:
            reason: `cancelled`, `interrupt` or `timeout`; see `Execution.cancel`.

        Returns:
            Whether anything ran.

        Raises:
            ValueError: `reason` is none of these.
        """
        checked_choice("reason", reason, CANCEL_REASONS)
        self._owner.check()
        execution = self._queue.oldest
        if execution is None:
            return False
        await execution.cancel(reason)
        return True

    async def output(
        self,
        execution_id: str,
        start: int = 0,
        stop: int | None = None,
        stream: StreamName = "stdout",
        *,
        run: str | None = None,
    ) -> str:
        """Read a part of what an execution has written to a stream, also what its result leaves out.

        The text is that of the whole stream, without the marker that stands in the result where output was
        cut; positions are as those of a slice. It may be asked for while the code runs, for what it has
        written by then, and after its end, by whatever that came, until the session is closed. Late
        output is not in it.

        Example:
            `await session.output(result.execution_id, -1000)` reads the last thousand characters.

        Args:
            execution_id: of any execution in a session with a store; without one, of one that runs or waits,
                was started with an `execution_id`, or whose output was cut: what was not cut is whole in its
                result.
            start: the first character, from 0 on; below 0 it is counted from the end.
            stop: the first character that is not wanted; None reads to the end.
            stream: `stdout` or `stderr`.
            run: which run of it, by its name in `runs`; None is the newest.

        Returns:
            The characters from `start` to `stop`, fewer where the text ends before.

        Raises:
            OutputNotKept: something of that part is not kept: there was no room for it
                (`WorkerConfig.max_spill_bytes`), it was not recorded, or all of it is in the result. The text
                says which part is.
            SessionClosed: the session is closed.
            StoreError: the record cannot be read.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        checked_id("execution_id", execution_id)
        part = checked_part(start, stop, stream)
        self._owner.check()
        self._refuse_closed()
        return await self._output_reader.read(execution_id, *part, checked_run(run))

    async def runs(self, execution_id: str) -> tuple[RunOutput, ...]:
        """Tell how much each run of an execution has written, and can be read by `output`.

        An execution is run again when its worker or its program has ended in the middle of it. In a session
        with an SQLite store what it writes is on record some 0.1 s after it came, so it can be read when the
        program was killed and the session is opened again.

        Example:
            for each in await session.runs("step-3"):
                text = await session.output("step-3", 0, each.stdout, run=each.run)

        Args:
            execution_id: as for `output`.

        Returns:
            The runs, oldest first, of which something is known; the newest is last. None of one that waits.

        Raises:
            OutputNotKept: nothing is known of such an execution.
            SessionClosed: the session is closed.
            StoreError: the record cannot be read.
            ValueError, TypeError: `execution_id` has the wrong value or type.
        """
        checked_id("execution_id", execution_id)
        self._owner.check()
        self._refuse_closed()
        return await self._output_reader.runs(execution_id)

    # --- variables -----------------------------------------------------------------------------------

    async def set(self, /, **values: Any) -> None:
        """Bind variables in the session, all or none of them.

        It takes its turn as an execution does. Inside of a host function that the session's code waits for it
        happens at once. It is state of the session: a recovery brings it back.

        Example:
            `await session.set(rows=rows, limit=10)`

        Args:
            values: plain data by name, as the table of values has it, of any size; arrays of NumPy's, tables
                and record batches of pyarrow's arrive as what they are, as copies.

        Raises:
            TransferError: a value, or something inside of it, cannot be sent or made there, or there is no
                memory for it; the text says which and why.
            ValueError: a name cannot be one of a variable, or is one of the session's own.
            WorkerDied: the worker is dead, or died first.
            SessionClosed: the session is closed.
            CapabilityError: an `on_output` handler asks for it.
            ExecutionCancelled: it was cancelled before it was done.
        """
        await self._variables.set(values)

    async def get(
        self,
        name: str,
        *,
        arrow: bool = False,
        timeout: float | None = SILENCE_SECONDS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Any:
        """Return the value of a variable as it is now; the worker answers while code runs.

        The code stands still until the value is out, so it is of one moment.

        Args:
            name: the variable's.
            arrow: tables and data frames (of pyarrow, pandas, polars) come as tables of pyarrow's.
            timeout: seconds for which nothing of it may come; None for as long as it takes.
            max_bytes: bytes that it may have.

        Returns:
            Plain data as the table of values has it, of any size; an array of NumPy's as what it is, if this
            program has imported numpy.

        Raises:
            TransferError: there is no such variable, or it cannot be sent or made here, or is too large.
            WorkerUnresponsive: nothing came for `timeout` seconds; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        return await self._variables.get(name, arrow=arrow, timeout=timeout, max_bytes=max_bytes)

    # --- host functions ------------------------------------------------------------------------------

    def offer(self, **capabilities: Capability | Callable[..., Any]) -> None:
        """Offer host functions from now on, also to code that runs; one of the same name is replaced.

        Example:
            `session.offer(search=search, pay=capability(pay, max_calls=3))`

        Args:
            capabilities: functions, or what `capability` made of them, by the names that the code calls.

        Raises:
            CapabilityError: a name or a function cannot be used; nothing is offered then.
            SessionClosed: the session is closed.
        """
        self._owner.check()
        self._refuse_closed()
        self._supervisor.offer(capabilities)

    def withdraw(self, *names: str) -> None:
        """Take host functions away from the code, also while it runs. Calls that are under way go on.

        A call by a reference that the code has kept is a CapabilityError there.

        Args:
            names: their names in the session.

        Raises:
            CapabilityError: none of that name is offered.
            SessionClosed: the session is closed.
        """
        self._owner.check()
        self._refuse_closed()
        self._supervisor.withdraw(names)

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise self._supervisor.unusable_error()

    # --- checkpoints ---------------------------------------------------------------------------------

    async def checkpoint(
        self, checkpoint_id: str | None = None, timeout: float | None = None
    ) -> Checkpointed:
        """Save the namespace under a name, in the session's record.

        It waits for what was submitted before.

        Args:
            checkpoint_id: names the checkpoint; without a colon. One is made up by default. A checkpoint of
                the same name is replaced.
            timeout: seconds that it may take; None for as long as it takes.

        Returns:
            The checkpoint's name, and in `unsaved` what could not be saved, by name and reason.

        Raises:
            WorkerDied: the worker died first, or is dead.
            SessionClosed: the session is closed.
            WorkerUnresponsive: the worker took longer than `timeout` seconds for it, or for a part of it.
            CapabilityError: a host function or handler asks for it that this session's code waits for.
            StoreError: it cannot be recorded.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        if timeout is not None:
            timeout = checked_seconds("timeout", timeout)
        self._owner.check()
        if checkpoint_id is None:
            checkpoint_id = f"checkpoint-{secrets.token_hex(4)}"
        checked_id("checkpoint_id", checkpoint_id)
        refuse_own_session(self._queue, "checkpoint", checkpoint_id)
        await self._supervisor.ready_worker()
        return await self._checkpoints.save(checkpoint_id, timeout)

    async def restore(self, checkpoint_id: str, timeout: float | None = None) -> Restored:
        """Make the namespace what it was at a checkpoint of this session. Checkpoints survive a `restart`.

        It waits for what was submitted before. `In`, `Out` and the numbering of cells go on as they are; a
        recovery brings them back too.

        Args:
            checkpoint_id: the checkpoint's name.
            timeout: seconds that each part of it may take; None for as long as it takes.

        Returns:
            In `unsaved` what could not be restored, by name and reason.

        Raises:
            WorkerDied: the worker died first, or is dead.
            SessionClosed: the session is closed.
            ValueError: this session has no checkpoint of that name, or `timeout` is not above 0.
            TypeError: `timeout` is no number.
            WorkerUnresponsive: the worker took longer than `timeout` seconds for it, or for a part of it.
            ProtocolError: the worker cannot read it.
            CapabilityError: a host function or handler asks for it that this session's code waits for.
            StoreError: the record cannot be read or written.
        """
        if timeout is not None:
            timeout = checked_seconds("timeout", timeout)
        checked_id("checkpoint_id", checkpoint_id)
        self._owner.check()
        refuse_own_session(self._queue, "the restore of checkpoint", checkpoint_id)
        worker = await self._ready_worker()
        return await self._checkpoints.restore_named(worker, checkpoint_id, timeout)

    # --- asking the worker ---------------------------------------------------------------------------

    async def ping(self, timeout: float = 5.0) -> Pong:
        """Ask the worker for a sign of life; it answers while code runs.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Resident bytes, CPU seconds, the length of the queue, and what runs.

        Raises:
            WorkerUnresponsive: there was no answer in time; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: `timeout` is not above 0, or no number.
        """
        return await self._queries.ping(timeout)

    async def stats(self, timeout: float = 10.0) -> Metrics:
        """Ask the worker for the metrics of the session's executions; it answers while code runs.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Counts and durations (seconds) of the executions so far.

        Raises:
            WorkerUnresponsive: there was no answer in time; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: `timeout` is not above 0, or no number.
        """
        return await self._queries.stats(timeout)

    async def complete(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Completions:
        """Ask what can stand at a position in code; the worker answers while code runs.

        Args:
            code: Python source, which need not be complete.
            cursor: a position in it, in characters; its end by default.
            timeout: seconds to wait for the answer.

        Returns:
            The candidates, best first, and the range of `code` that they replace.

        Raises:
            WorkerUnresponsive: there was no answer in time; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        return await self._queries.complete(code, cursor, timeout)

    async def inspect(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Inspection:
        """Ask about the name at a position in code; the worker answers while code runs.

        Args:
            code: Python source, which need not be complete.
            cursor: a position in it, in characters; its end by default.
            timeout: seconds to wait for the answer.

        Returns:
            What is known of it: type, signature, documentation, source and repr.

        Raises:
            WorkerUnresponsive: there was no answer in time; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        return await self._queries.inspect(code, cursor, timeout)

    async def is_complete(self, code: str, timeout: float = 10.0) -> Completeness:
        """Ask whether code is complete, as an editor does before it runs it.

        Nothing of it is run. A block of several lines is complete when a line ends it, which may be empty.

        Args:
            code: Python source, prompts that it was pasted with included.
            timeout: seconds to wait for the answer.

        Returns:
            `complete`, `incomplete` with the indentation of its next line, or `invalid`.

        Raises:
            WorkerUnresponsive: there was no answer in time; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: an argument has the wrong value or type.
        """
        return await self._queries.is_complete(code, timeout)

    async def variables(self, timeout: float = 10.0) -> dict[str, Variable]:
        """Ask for the namespace's variables; the worker answers while code runs.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Type and short repr of each variable, by its name.

        Raises:
            WorkerUnresponsive: there was no answer in time; it is a TimeoutError too.
            WorkerDied: the session has no worker and gets none, or two in a row died first.
            SessionClosed: the session is closed.
            ValueError, TypeError: `timeout` is not above 0, or no number.
        """
        return await self._queries.variables(timeout)

    # --- restarting and ending -----------------------------------------------------------------------

    async def restart(self) -> None:
        """End the worker, whatever it does, and start a fresh one with an empty namespace.

        What is under way fails with WorkerDied. What ran before is not brought back any more; recorded
        outcomes stay.

        Raises:
            SessionClosed: the session is closed.
            SpawnError: no new worker can be started; the session stays dead.
            StoreError: the restart cannot be recorded; the session stays dead.
        """
        self._owner.check()
        await self._supervisor.restart()

    async def close(self) -> None:
        """End the session and everything that belongs to it. Idempotent; `open_session` calls it.

        What is under way fails with SessionClosed; in a store it stays, and goes on when the session is
        opened again. The running cell is cancelled, and has until `close_grace` is over for what it does
        about that (`finally`). Host functions are cancelled and waited for.
        """
        self._owner.check()
        await self._close()
        if not self._loop_ends:
            await self._loop_end.aclose()

    async def _close(self) -> None:
        try:
            try:
                await self._file_access.close(self._close_grace)
            finally:
                await self._supervisor.close()
                await self._telemetry.close(self._close_grace)
        finally:
            self._guard.release()
            if self._release is not None:
                self._release()

    async def _ready_worker(self) -> WorkerHandle:
        self._owner.check()
        return await self._supervisor.ready_worker()
