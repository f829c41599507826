"""The client for programs without an event loop: the same names and arguments, nothing to await.

    from pyrepl3_client import sync as pyrepl3

    with pyrepl3.open_session() as session:
        print(session.execute("1 + 1").value)

A session is open at once, and closed by `close` or by leaving its context; any thread of the process may use
it. Each `open_session` and each pool has one background thread with an event loop. Handlers and `async`
host functions run there, so they must not call the session; plain host functions and `on_input` run in
threads of their own. Ctrl-C during a call cancels the execution and raises KeyboardInterrupt when that
is done; pressing it again takes the next step of the cancel at once.

The file is long since it repeats every method with its arguments.
"""

import asyncio
import os
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, NoReturn, Self

from pyrepl3_client._concurrency.loop_thread import LoopThread, insist
from pyrepl3_client._concurrency.uncancellable import wait_and_forward_cancel
from pyrepl3_client._execution import execution as _execution
from pyrepl3_client._execution.event_log import Event
from pyrepl3_client._execution.handlers import DisplayHandler, InputHandler, OutputHandler
from pyrepl3_client._execution.offers import Capability
from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._files.actions import FileInfo
from pyrepl3_client._journal.protocol import BridgeMetrics, OnError
from pyrepl3_client._pool import pool as _pool
from pyrepl3_client._pool.stats import PoolStats
from pyrepl3_client._session import files as _files
from pyrepl3_client._session import open as _open
from pyrepl3_client._session import session as _session
from pyrepl3_client._session.files import DEFAULT_READ_BYTES
from pyrepl3_client._session.options import RecoveryHandler
from pyrepl3_client._session.recovery_report import Recovery, RecoveryPolicy
from pyrepl3_client._session.run_texts import RunOutput
from pyrepl3_client._session.variables import DEFAULT_MAX_BYTES, SILENCE_SECONDS
from pyrepl3_client._telemetry.handlers import EventHandler
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import PoolClosed, PyRepl3Error, SessionClosed
from pyrepl3_client.results import Completeness, ExecutionResult
from pyrepl3_schemas.executor_config import shown
from pyrepl3_schemas.lifecycle import ExecutionState, SessionState
from pyrepl3_schemas.messages import (
    CancelReason,
    Checkpointed,
    Completions,
    FromWorker,
    Inspection,
    Metrics,
    Pong,
    Restored,
    ResultMode,
    StreamName,
    Variable,
)

__all__ = ["Execution", "Session", "SessionFiles", "WorkerPool", "open_session"]


class Execution:
    """Code that has been submitted; see `pyrepl3_client.Execution`. Made by `Session.start`.

    Two handles of the same execution are equal.
    """

    def __init__(self, execution: _execution.Execution, thread: LoopThread, session: "Session") -> None:
        """Wrap an execution that belongs to the loop of `thread`; its session stays open as long as this."""
        self._execution = execution
        self._thread = thread
        self._session = session

    def __repr__(self) -> str:
        """Show id and state."""
        return repr(self._execution)

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a handle of the same execution."""
        return self._execution == other._execution if isinstance(other, Execution) else NotImplemented

    def __hash__(self) -> int:
        """Return the same number for each handle of the same execution."""
        return hash(self._execution)

    @property
    def execution_id(self) -> str:
        """Its id: the one it was started with, or one that was made up."""
        return self._execution.execution_id

    @property
    def code(self) -> str:
        """The source that was submitted."""
        return self._execution.code

    @property
    def state(self) -> ExecutionState:
        """Its state: queued, running, cancelling or finished."""
        return self._execution.state

    @property
    def attempts(self) -> int:
        """How many workers have run it or begun to, the present one included."""
        return self._execution.attempts

    def result(self) -> ExecutionResult:
        """Wait for the outcome. Ctrl-C cancels the execution.

        Returns:
            The outcome; each call returns the same.

        Raises:
            ExecutionFailed, ExecutionTimeout, ExecutionCancelled: the code failed, and the execution was
                started with `check=True`.
            WorkerDied: its worker ended before it did.
            SessionClosed: its session was closed before it ended.
            KeyboardInterrupt: Ctrl-C came meanwhile, and the execution is over.
            Exception: what `on_output` or `on_display` raised for this execution.
        """
        return self._thread.run(lambda: _result_or_cancel(self._execution))

    def cancel(self, reason: CancelReason = "cancelled") -> None:
        """Stop the execution and wait until it is over: its worker is free then, or dead.

        Args:
            reason: `cancelled` raises asyncio.CancelledError in the code, `interrupt` KeyboardInterrupt,
                `timeout` TimeoutError.
        """
        self._thread.run(lambda: self._execution.cancel(reason))

    def output(self, start: int = 0, stop: int | None = None, stream: StreamName = "stdout") -> str:
        """Read a part of what the code has written to a stream, also what its result leaves out.

        Args:
            start: the first character, from 0 on; below 0 it is counted from the end.
            stop: the first character that is not wanted; None reads to the end.
            stream: `stdout` or `stderr`.

        Returns:
            The characters from `start` to `stop`, fewer where the text ends before.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Execution.output`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._execution.output(start, stop, stream))

    def __iter__(self) -> Iterator[Event]:
        """Iterate over the messages. Each comes once; when the iteration is left early, the code goes on.

        Returns:
            An iterator that ends after the execution's `Result` or `Error`.

        Raises:
            WorkerDied, SessionClosed: no more messages will come, and the last has not.
            KeyboardInterrupt: Ctrl-C came while it waited; the execution goes on.
        """
        events = self._thread.call(self._execution.__aiter__)
        while (event := self._thread.run(lambda: _next(events))) is not None:
            yield event


async def _result_or_cancel(execution: _execution.Execution) -> ExecutionResult:
    """Wait for the outcome; when this wait is cancelled, cancel the execution and wait for its end."""
    try:
        return await execution.result()
    except asyncio.CancelledError:
        # Each further Ctrl-C asks again, which goes a step further.
        await wait_and_forward_cancel(execution.cancel, lambda: None)
        raise


async def _next(events: _execution.Events) -> Event | None:
    # StopAsyncIteration cannot pass through a coroutine.
    return await anext(events, None)


class SessionFiles:
    """The files of a session: `session.files`; see `pyrepl3_client.SessionFiles`."""

    def __init__(self, files: _files.SessionFiles, thread: LoopThread, session: "Session") -> None:
        """Wrap the files of a session of the loop of `thread`, which stays open as long as this."""
        self._files = files
        self._thread = thread
        self._session = session

    def __repr__(self) -> str:
        """Show whose files they are."""
        return repr(self._files)

    def read(self, path: str | PathLike[str], *, max_bytes: int = DEFAULT_READ_BYTES) -> bytes:
        """Return the content of a file, as far as it reaches at this moment.

        Args:
            path: of a file of the session.
            max_bytes: bytes that it may have; `download` takes any size.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.SessionFiles.read`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._files.read(path, max_bytes=max_bytes))

    def write(self, path: str | PathLike[str], data: bytes | bytearray | memoryview) -> None:
        """Write a file, with the folders that are missing. It takes the place of an earlier one at once.

        Args:
            path: of a file of the session.
            data: its whole content.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.SessionFiles.write`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        self._thread.run(lambda: self._files.write(path, data))

    def list(self, path: str | PathLike[str] = ".") -> list[FileInfo]:
        """Return what is in a folder, sorted by name.

        Args:
            path: of a folder of the session; by default its work directory.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.SessionFiles.list`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._files.list(path))

    def remove(self, path: str | PathLike[str], *, recursive: bool = False) -> None:
        """Remove a file, a link itself, or an empty folder.

        Args:
            path: of what is to be removed.
            recursive: remove a folder with all that is in it.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.SessionFiles.remove`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        self._thread.run(lambda: self._files.remove(path, recursive=recursive))

    def download(
        self, path: str | PathLike[str], to: str | PathLike[str], *, max_bytes: int | None = None
    ) -> None:
        """Copy a file of the session to this program's side, of any size. Ctrl-C leaves `to` as it was.

        Args:
            path: of a file of the session.
            to: where it goes on this machine; into a folder, if that is one.
            max_bytes: bytes that it may have; None is any number.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.SessionFiles.download`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        self._thread.run(lambda: self._files.download(path, to, max_bytes=max_bytes))

    def upload(self, from_: str | PathLike[str], path: str | PathLike[str]) -> None:
        """Copy a file of this program's side to the session, of any size. Ctrl-C leaves `path` as it was.

        Args:
            from_: a file on this machine.
            path: where it goes in the session; into a folder, if that is one.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.SessionFiles.upload`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        self._thread.run(lambda: self._files.upload(from_, path))


class Session:
    """A namespace in a worker process; see `pyrepl3_client.Session`. Made by `open_session`."""

    def __init__(self, session: _session.Session, thread: LoopThread, *, owns_thread: bool = False) -> None:
        """Wrap a session that belongs to the loop of `thread`, which ends with it if it `owns_thread`."""
        self._session = session
        self._thread = thread
        self._owns_thread = owns_thread
        self._is_open = True
        """Whether its user has neither closed nor released it."""
        if owns_thread:
            thread.serves = f"session {session.session_id!r}"

    def __repr__(self) -> str:
        """Show id, state and worker."""
        return repr(self._session).replace("<Session", "<sync.Session", 1)

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._session.session_id

    @property
    def interceptors(self) -> list[Callable[[FromWorker], bool | None]]:
        """Functions that see each message from the worker; they run in the loop's thread."""
        return self._session.interceptors

    @property
    def state(self) -> SessionState:
        """The state of the session."""
        return self._session.state

    @property
    def worker(self) -> _session.WorkerInfo:
        """The worker the session has now, or had last."""
        return self._session.worker

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """One report for each time the session came back, oldest first."""
        return self._session.recoveries

    @property
    def bridge(self) -> BridgeMetrics | None:
        """What the bridge to the store has done since the session was opened; None without a store."""
        return self._session.bridge

    @property
    def files(self) -> SessionFiles:
        """The session's files: read, write, list, remove, download, upload; also while code runs."""
        return SessionFiles(self._session.files, self._thread, self)

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
            filename: the file that the code is from.
            first_line: the number that the code's first line has there.
            on_error: `stop_queue` ends what is queued behind this execution if it fails, without running it.
            on_output: gets each `Output` of this execution, beside the session's own handler.
            on_input: answers this execution's prompts instead of the session's own handler.
            on_display: gets each `Display` of this execution, beside the session's own handler.
            check: whether `result()` raises when the code failed.

        Returns:
            Its handle; for an `execution_id` that is under way, a handle of that execution.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.start`.
        """
        execution = self._thread.call(
            lambda: self._session.start(
                code,
                execution_id=execution_id,
                timeout=timeout,
                result_mode=result_mode,
                filename=filename,
                first_line=first_line,
                on_error=on_error,
                on_output=on_output,
                on_input=on_input,
                on_display=on_display,
                check=check,
            )
        )
        return Execution(execution, self._thread, self)

    def execute(
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
        """Run code and wait for its outcome. Ctrl-C cancels the execution.

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
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.execute`.
            KeyboardInterrupt: Ctrl-C came meanwhile, and the execution is over.
            Exception: what `on_output` or `on_display` raised.
        """
        return self._thread.run(
            lambda: self._session.execute(
                code,
                execution_id=execution_id,
                timeout=timeout,
                result_mode=result_mode,
                filename=filename,
                first_line=first_line,
                on_error=on_error,
                on_output=on_output,
                on_input=on_input,
                on_display=on_display,
                check=check,
            )
        )

    def cancel(self, reason: CancelReason = "cancelled") -> bool:
        """Stop the execution that runs now and wait until it is over.

        Args:
            reason: `cancelled`, `interrupt` or `timeout`; see `Execution.cancel`.

        Returns:
            Whether anything ran.

        Raises:
            ValueError: `reason` is none of these.
        """
        return self._thread.run(lambda: self._session.cancel(reason))

    def offer(self, **capabilities: Capability | Callable[..., Any]) -> None:
        """Offer host functions from now on, also to code that runs; one of the same name is replaced.

        Args:
            capabilities: functions, or what `capability` made of them, by the names that the code calls.

        Raises:
            CapabilityError: a name or a function cannot be used; nothing is offered then.
            SessionClosed: the session is closed.
        """
        self._thread.call(lambda: self._session.offer(**capabilities))

    def withdraw(self, *names: str) -> None:
        """Take host functions away from the code, also while it runs. Calls that are under way go on.

        Args:
            names: their names in the session.

        Raises:
            CapabilityError: none of that name is offered.
            SessionClosed: the session is closed.
        """
        self._thread.call(lambda: self._session.withdraw(*names))

    def ping(self, timeout: float = 5.0) -> Pong:
        """Ask the worker for a sign of life; it answers while code runs.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Resident bytes, CPU seconds, the length of the queue, and what runs.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.ping`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.ping(timeout))

    def output(
        self,
        execution_id: str,
        start: int = 0,
        stop: int | None = None,
        stream: StreamName = "stdout",
        *,
        run: str | None = None,
    ) -> str:
        """Read a part of what an execution has written to a stream, also what its result leaves out.

        Args:
            execution_id: of an execution that runs or waits, or whose output was cut.
            start: the first character, from 0 on; below 0 it is counted from the end.
            stop: the first character that is not wanted; None reads to the end.
            stream: `stdout` or `stderr`.
            run: which run of it, by its name in `runs`; None is the newest.

        Returns:
            The characters from `start` to `stop`, fewer where the text ends before.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.output`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.output(execution_id, start, stop, stream, run=run))

    def runs(self, execution_id: str) -> tuple[RunOutput, ...]:
        """Tell how much each run of an execution has written, and can be read by `output`.

        Args:
            execution_id: as for `output`.

        Returns:
            The runs, oldest first, of which something is known.

        Raises:
            OutputNotKept: nothing is known of such an execution.
            SessionClosed: the session is closed.
            StoreError: the record cannot be read.
        """
        return self._thread.run(lambda: self._session.runs(execution_id))

    def stats(self, timeout: float = 10.0) -> Metrics:
        """Ask the worker for the metrics of the session's executions; it answers while code runs.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Counts and durations (seconds) of the executions so far.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.stats`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.stats(timeout))

    def complete(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Completions:
        """Ask what can stand at a position in code; the worker answers while code runs.

        Args:
            code: Python source, which need not be complete.
            cursor: a position in it, in characters; its end by default.
            timeout: seconds to wait for the answer.

        Returns:
            The candidates, best first, and the range of `code` that they replace.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.complete`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.complete(code, cursor, timeout))

    def inspect(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Inspection:
        """Ask about the name at a position in code; the worker answers while code runs.

        Args:
            code: Python source, which need not be complete.
            cursor: a position in it, in characters; its end by default.
            timeout: seconds to wait for the answer.

        Returns:
            What is known of it: type, signature, documentation, source and repr.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.inspect`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.inspect(code, cursor, timeout))

    def is_complete(self, code: str, timeout: float = 10.0) -> Completeness:
        """Ask whether code is complete, as an editor does before it runs it.

        Nothing of it is run. A block of several lines is complete when a line ends it, which may be empty.

        Args:
            code: Python source, prompts that it was pasted with included.
            timeout: seconds to wait for the answer.

        Returns:
            `complete`, `incomplete` with the indentation of its next line, or `invalid`.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.is_complete`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.is_complete(code, timeout))

    def variables(self, timeout: float = 10.0) -> dict[str, Variable]:
        """Ask for the namespace's variables; the worker answers while code runs.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Type and short repr of each variable, by its name.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.variables`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.variables(timeout))

    def set(self, /, **values: Any) -> None:
        """Bind variables in the session, all or none of them.

        Args:
            values: as for `pyrepl3_client.Session.set`.

        Raises:
            PyRepl3Error, ValueError: as `pyrepl3_client.Session.set`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        self._thread.run(lambda: self._session.set(**values))

    def get(
        self,
        name: str,
        *,
        arrow: bool = False,
        timeout: float | None = SILENCE_SECONDS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Any:
        """Return the value of a variable as it is now; the worker answers while code runs.

        Args:
            name: as for `pyrepl3_client.Session.get`, and so are the others.
            arrow: tables and data frames come as tables of pyarrow's.
            timeout: seconds for which nothing of it may come; None for as long as it takes.
            max_bytes: bytes that it may have.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.get`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(
            lambda: self._session.get(name, arrow=arrow, timeout=timeout, max_bytes=max_bytes)
        )

    def checkpoint(self, checkpoint_id: str | None = None, timeout: float | None = None) -> Checkpointed:
        """Save the namespace under a name, in the session's record.

        Args:
            checkpoint_id: names the checkpoint; without a colon. One is made up by default. A checkpoint of
                the same name is replaced.
            timeout: seconds that it may take; None for as long as it takes.

        Returns:
            The checkpoint's name, and in `unsaved` what could not be saved, by name and reason.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.checkpoint`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.checkpoint(checkpoint_id, timeout))

    def restore(self, checkpoint_id: str, timeout: float | None = None) -> Restored:
        """Make the namespace what it was at a checkpoint of this session.

        Args:
            checkpoint_id: the checkpoint's name.
            timeout: seconds that each part of it may take; None for as long as it takes.

        Returns:
            In `unsaved` what could not be restored, by name and reason.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.Session.restore`.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        return self._thread.run(lambda: self._session.restore(checkpoint_id, timeout))

    def restart(self) -> None:
        """End the worker, whatever it does, and start a fresh one with an empty namespace.

        Raises:
            SessionClosed: the session is closed.
            SpawnError: no new worker can be started; the session stays dead.
            StoreError: the restart cannot be recorded; the session stays dead.
        """
        self._thread.run(self._session.restart)

    def close(self) -> None:
        """End the session and everything that belongs to it. Idempotent, and callable from any thread."""
        insist(self._close)

    def _close(self) -> None:
        self._is_open = False
        try:
            insist(lambda: self._thread.run(self._session.close))
        except SessionClosed:
            pass  # it is closed, with its thread
        finally:
            if self._owns_thread and self._thread.is_usable:
                self._thread.stop()

    def __enter__(self) -> Self:
        """Return the session, which leaving the context closes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session. In a forked child, whose session it is not, do nothing."""
        insist(self._leave)

    def _leave(self) -> None:
        if self._thread.is_usable:
            self.close()

    def __del__(self) -> None:
        """Give back what was dropped to its pool, with a warning; a Ctrl-C before `with` may do that too.

        One that is in no pool is ended when the interpreter exits.
        """
        if not vars(self).get("_is_open") or self._owns_thread or not self._thread.is_usable:
            return
        if self._thread.start_soon(self._session.close):
            warnings.warn(
                f"session {self.session_id!r} of a pool was never given back: use `with`, or close it",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def __aenter__(self) -> NoReturn:
        """Say that it is entered by `with`."""
        raise TypeError(
            f"session {self.session_id!r} is of pyrepl3_client.sync: write `with`, or take pyrepl3_client, "
            "whose sessions are entered by `async with`"
        )

    async def __aexit__(self, *_: object) -> None:
        """Be there for `async with`, which looks for this first."""


def open_session(
    session_id: str | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    config: WorkerConfig = _open.DEFAULT_CONFIG,
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
) -> Session:
    """Start a worker and open a session in it, at once. Close it, or use it as a context.

    Any thread of this process may use the session. One that is not closed is ended when the interpreter
    exits, with a ResourceWarning. `pyrepl3_client.open_session` describes the options further.

    Args:
        session_id: names the session; without a colon. One is made up by default.
        store: where the session is recorded; None is this process's memory.
        config: the worker's interpreter, surroundings, limits and graces.
        capabilities: host functions by the names under which the code may call them.
        on_output: gets every `Output` in order, in the loop's thread.
        on_input: answers prompts; a plain function runs in a thread and may block.
        on_display: gets every `Display` in order, in the loop's thread.
        recovery: what a worker's death leads to: `auto`, `replay`, `checkpoint` or `none`.
        max_attempts: how many workers one execution may cost before it ends with WorkerDied; at least 1.
        on_recovery: gets the report when the session has come back.
        on_event: gets each `SessionEvent`; a plain function is called in a thread.
        wait: seconds to wait while the session is another owner's.
        allow_weaker_confinement: open a session at a weaker level than it has run with.

    Returns:
        The session, which is a context manager too: leaving it closes the session.

    Raises:
        SpawnError, CapabilityError, StoreError, ValueError: as `pyrepl3_client.open_session`.
    """
    thread = LoopThread("pyrepl3-session")
    try:
        thread.start()
        return _opened(
            thread,
            lambda: _open.open_session(
                session_id,
                store=store,
                config=config,
                capabilities=capabilities,
                on_output=on_output,
                on_input=on_input,
                on_display=on_display,
                recovery=recovery,
                max_attempts=max_attempts,
                on_recovery=on_recovery,
                on_event=on_event,
                wait=wait,
                allow_weaker_confinement=allow_weaker_confinement,
            ),
            owns_thread=True,
        )
    except BaseException:
        thread.stop()
        raise


def _opened(
    thread: LoopThread, make: Callable[[], Awaitable[_session.Session]], *, owns_thread: bool = False
) -> Session:
    """Open a session in a thread's loop; a Ctrl-C leaves none open without an owner."""
    opened: list[_session.Session] = []

    async def opening() -> None:
        opened.append(await make())

    try:
        thread.run(opening)
        return Session(opened[0], thread, owns_thread=owns_thread)
    except BaseException:
        for session in opened:
            insist(lambda session=session: thread.run(session.close))
        raise


class WorkerPool:
    """Keeps workers warm; see `pyrepl3_client.WorkerPool`. Its sessions share one background thread."""

    def __init__(
        self,
        size: int,
        config: WorkerConfig = _open.DEFAULT_CONFIG,
        warm: Sequence[str] = (),
        *,
        max_sessions: int | None = None,
        acquire_timeout: float | None = _pool.DEFAULT_ACQUIRE_TIMEOUT,
        idle_timeout: float | None = None,
        fork: bool = True,
        on_event: EventHandler | None = None,
    ) -> None:
        """Describe the pool; entering it starts the workers.

        Args:
            size: how many workers to keep waiting.
            config: the configuration of all of them.
            warm: names of modules for them to import, on top of `config.warm`.
            max_sessions: how many sessions may be open at a time; None is as many as `size`.
            acquire_timeout: seconds that a request for a session waits for room; None: as long as it takes.
            idle_timeout: seconds after which an unused session by name is put into its store; None
                does so only when others wait for room.
            fork: whether workers may be forked from a fork server.
            on_event: gets each `SessionEvent` of the pool's sessions.

        Raises:
            ValueError, TypeError: an argument has the wrong value or type; the text names it.
        """
        self._pool = _pool.WorkerPool(
            size,
            config,
            warm,
            max_sessions=max_sessions,
            acquire_timeout=acquire_timeout,
            idle_timeout=idle_timeout,
            fork=fork,
            on_event=on_event,
        )
        self._thread = LoopThread("pyrepl3-pool")

    def __repr__(self) -> str:
        """Show size, how many workers wait, and whether the pool is open."""
        return repr(self._pool).replace("<WorkerPool", "<sync.WorkerPool", 1)

    @property
    def size(self) -> int:
        """How many workers to keep waiting."""
        return self._pool.size

    @property
    def max_sessions(self) -> int:
        """How many sessions may be open at a time."""
        return self._pool.max_sessions

    @property
    def config(self) -> WorkerConfig:
        """The configuration of all of them."""
        return self._pool.config

    @property
    def waiting(self) -> int:
        """How many warm workers wait for a session."""
        return self._pool.waiting

    @property
    def spawn_reason(self) -> str | None:
        """Why workers are spawned and not forked; None when they are forked."""
        return self._pool.spawn_reason

    def __enter__(self) -> Self:
        """Start the workers and wait until all of them are warm.

        Returns:
            The pool.

        Raises:
            SpawnError: one could not be started, or ended, or took longer than `spawn_timeout`.
            PyRepl3Error: the pool has been entered and not left.
            KeyboardInterrupt: Ctrl-C came meanwhile; the workers have ended.
        """
        if self._thread.is_running:
            raise PyRepl3Error("the pool is open already: enter it once, and use it from many threads")
        try:
            self._thread.start()
            self._thread.run(self._pool.__aenter__)
        except BaseException:
            insist(self._leave)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the workers that wait, and the thread; its sessions have to be left before.

        In a forked child, whose pool it is not, do nothing.
        """
        insist(self._leave)

    def _leave(self) -> None:
        if not self._thread.is_usable:
            return
        try:
            insist(lambda: self._thread.run(lambda: self._pool.__aexit__(None, None, None)))
        except SessionClosed:
            pass  # its thread has not begun, or has ended
        finally:
            self._thread.stop()

    def open_session(
        self,
        session_id: str | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        config: WorkerConfig | None = None,
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
    ) -> Session:
        """Open a session in a worker of the pool, as soon as there is room. Close it, or use it as a context.

        Args:
            session_id: names the session; without a colon. One is made up by default.
            store: where the session is recorded; None is this process's memory.
            config: the session's own, by default the pool's; see `pyrepl3_client.WorkerPool.open_session`.
            capabilities: host functions by the names under which the code may call them.
            on_output: gets every `Output` in order, in the loop's thread.
            on_input: answers prompts; a plain function runs in a thread and may block.
            on_display: gets every `Display` in order, in the loop's thread.
            recovery: what a worker's death leads to: `auto`, `replay`, `checkpoint` or `none`.
            max_attempts: how many workers one execution may cost before it ends with WorkerDied; at least 1.
            on_recovery: gets the report when the session has come back.
            on_event: gets each `SessionEvent`, beside the pool's own handler.
            wait: seconds to wait while the session is another owner's.
            allow_weaker_confinement: open a session at a weaker level than it has run with.

        Returns:
            The session, which is a context manager too: leaving it closes the session.

        Raises:
            PoolClosed, PoolTimeout, SpawnError, CapabilityError, StoreError, ValueError: as
                `pyrepl3_client.WorkerPool.open_session`.
            KeyboardInterrupt: Ctrl-C came meanwhile; nothing is open.
        """
        self._require_open()
        return _opened(
            self._thread,
            lambda: self._pool.open_session(
                session_id,
                store=store,
                config=config,
                capabilities=capabilities,
                on_output=on_output,
                on_input=on_input,
                on_display=on_display,
                recovery=recovery,
                max_attempts=max_attempts,
                on_recovery=on_recovery,
                on_event=on_event,
                wait=wait,
                allow_weaker_confinement=allow_weaker_confinement,
            ),
        )

    def acquire(self, timeout: float | None = None) -> Session:
        """Wait for room, and open a new session in a worker of the pool; `release` is to end it.

        It is a context manager too, and the safest form is `with pool.acquire() as session`. One that is
        dropped, as by a Ctrl-C before the program has it, gives its place back, with a ResourceWarning.

        Args:
            timeout: seconds to wait for room; None for `acquire_timeout`.

        Returns:
            The session.

        Raises:
            PoolClosed, PoolTimeout, SpawnError, ValueError, TypeError: as
                `pyrepl3_client.WorkerPool.acquire`.
            KeyboardInterrupt: Ctrl-C came meanwhile; nothing is open.
        """
        self._require_open()
        return _opened(self._thread, lambda: self._pool.acquire(timeout))

    def release(self, session: Session) -> None:
        """End the use of a session of this pool: it is closed, and one by name goes on for all others.

        Args:
            session: what `acquire`, `open_session` or `session` gave, and was not released since.

        Raises:
            ValueError: it is not this pool's, or was released already.
            TypeError: it is no session.
            KeyboardInterrupt: Ctrl-C came meanwhile; it is released.
        """
        if not isinstance(session, Session):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"session must be a Session of this pool, not {shown(session)}")
        self._require_open()
        inner = session._session  # noqa: SLF001 - of this module # pyright: ignore[reportPrivateUsage]
        taken: list[asyncio.Future[None]] = []

        async def releasing() -> None:
            if not taken:
                taken.append(self._pool.release(inner))
                session._is_open = False  # noqa: SLF001 - of this module # pyright: ignore[reportPrivateUsage]
            # What is cancelled by a Ctrl-C is this wait alone: the next call waits on.
            await asyncio.shield(taken[0])

        insist(lambda: self._thread.run(releasing))

    def session(
        self,
        name: str,
        *,
        store: str | os.PathLike[str] | None = None,
        config: WorkerConfig | None = None,
        capabilities: Capabilities | None = None,
        recovery: RecoveryPolicy = "auto",
        max_attempts: int = 3,
        wait: float = 0.0,
        allow_weaker_confinement: bool = False,
    ) -> Session:
        """Use the session of a name: the live one if there is one, else from its store, else a new one.

        Give it back by `close`, `release` or leaving its context; it goes on for others and for later.
        `pyrepl3_client.WorkerPool.session` says when it is put into its store.

        Args:
            name: the session's, and its id in the store; without a colon.
            store: where it is recorded.
            config: its own, as for `open_session`.
            capabilities: host functions by their names; those of the newest use count, for all.
            recovery: what a worker's death leads to.
            max_attempts: how many workers one execution may cost.
            wait: seconds to wait while the session is another owner's.
            allow_weaker_confinement: open a session at a weaker level than it has run with.

        Returns:
            The session.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.WorkerPool.session`.
            KeyboardInterrupt: Ctrl-C came meanwhile; it is not in use then.
        """
        self._require_open()
        return _opened(
            self._thread,
            lambda: self._pool.session(
                name,
                store=store,
                config=config,
                capabilities=capabilities,
                recovery=recovery,
                max_attempts=max_attempts,
                wait=wait,
                allow_weaker_confinement=allow_weaker_confinement,
            ),
        )

    def close_session(self, name: str, *, store: str | os.PathLike[str] | None = None) -> bool:
        """End the live session of a name for all its users; what runs in it is cancelled.

        Args:
            name: the session's.
            store: as for `session`.

        Returns:
            Whether it was live.

        Raises:
            PyRepl3Error, ValueError, TypeError: as `pyrepl3_client.WorkerPool.close_session`.
            KeyboardInterrupt: Ctrl-C came meanwhile; it may be live still.
        """
        self._require_open()
        return self._thread.run(lambda: self._pool.close_session(name, store=store))

    def stats(self) -> PoolStats:
        """Return the figures of the pool as they are now."""
        return self._thread.call(self._pool.stats) if self._thread.is_running else self._pool.stats()

    def drain(self, timeout: float | None = None) -> bool:
        """Give no more sessions, and wait until those that there are have ended.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Returns:
            Whether all of them have ended in time.

        Raises:
            PoolClosed, ValueError, TypeError: as `pyrepl3_client.WorkerPool.drain`.
            KeyboardInterrupt: Ctrl-C came meanwhile; no more sessions are given.
        """
        self._require_open()
        return self._thread.run(lambda: self._pool.drain(timeout))

    def _require_open(self) -> None:
        if not self._thread.is_running:
            raise PoolClosed("the pool is not open: use it as `with WorkerPool(…) as pool`")
