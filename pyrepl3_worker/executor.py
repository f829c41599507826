"""AsyncExecutor: runs code, one execution after the other, each by the route that suits it.

    simple_sync, async_def   on the loop's thread, at once
    blocking_sync            there too, or on the thread for blocking code: see `execution.threads`
    top_level_await          as a task on the loop
    unknown                  reports why it does not compile

Every route ends in `_finish`, whatever happened in it.
"""

import asyncio
import contextvars
import sys
import threading
from asyncio import CancelledError, Task, get_running_loop  # by name: the code may replace asyncio's own
from collections import deque
from collections.abc import Callable
from time import CLOCK_BOOTTIME, clock_gettime, perf_counter  # by name, for the same reason
from typing import Any, Final

from pyrepl3_schemas.messages import CancelReason
from pyrepl3_worker.code.analysis import ExecutionMode
from pyrepl3_worker.code.cell_sources import Place
from pyrepl3_worker.code.compiler import CompiledCell, Compiler
from pyrepl3_worker.code.pasted_prompts import strip_prompts
from pyrepl3_worker.code.repl_hooks import (
    EXCEPTHOOK,
    call_excepthook,
    drop_outer_own_frames,
    print_failed_excepthook,
    remember_last_error,
)
from pyrepl3_worker.code.suggestions import ErrorRecovery
from pyrepl3_worker.config import ExecutorConfig
from pyrepl3_worker.errors import CancellationError, CompilationError, add_note
from pyrepl3_worker.execution.blocking_thread import BlockingThread
from pyrepl3_worker.execution.canceller import Canceller
from pyrepl3_worker.execution.execution import CallPath, WorkerExecution, current_path, exit_forked_child
from pyrepl3_worker.execution.host import NO_VALUE, CellOutcome, CellSyntax, DoneCallback, Host, NullHost
from pyrepl3_worker.execution.metrics import ExecutionMetrics
from pyrepl3_worker.execution.running import (
    await_between_events,
    await_cell,
    prepare_cell,
    run_and_encode,
    run_between_events,
    runner_globals,
)
from pyrepl3_worker.execution.tasks import CoroutineManager
from pyrepl3_worker.execution.threads import add_thread_note, what_loop_serves
from pyrepl3_worker.interrupts.signals import call_user_code, make_cancel_error
from pyrepl3_worker.interrupts.timers import TimerThread
from pyrepl3_worker.isolation.builtins_guard import remove_user_hooks
from pyrepl3_worker.namespace import NamespaceManager


class AsyncExecutor:
    """Runs a session's code in its living namespace.

    Executions run one at a time, in the order in which they were submitted. The executor belongs to
    the thread and loop on which it first runs something; for code that holds that thread to be
    stoppable it must be the main thread.

    Example::

        executor = AsyncExecutor(NamespaceManager(), "docs")
        assert await executor.execute("import asyncio; await asyncio.sleep(0, 42)") == 42
    """

    PyCF_ALLOW_TOP_LEVEL_AWAIT = 0x2000

    def __init__(
        self,
        namespace: NamespaceManager,
        session_id: str,
        *,
        config: ExecutorConfig = ExecutorConfig(),
        host: Host | None = None,
        timers: TimerThread | None = None,
    ) -> None:
        """Make an executor that has run nothing yet.

        Args:
            namespace: where the code runs.
            session_id: names the session in the notes of errors.
            config: limits and choices.
            host: what surrounds the executor; None when it is used by itself.
            timers: the thread for timeouts; None for one of the executor's own.

        Raises:
            ValueError: a syntax other than Python's, which only a session has.
        """
        if host is None and config.syntax != "python":
            raise ValueError(f"syntax={config.syntax!r} needs a session around the executor")
        self.namespace = namespace
        self.session_id = session_id
        self.config = config
        self.coroutine_manager = CoroutineManager(config.max_coroutines)
        self.metrics = ExecutionMetrics()
        self.compiler = Compiler(config.cache_size)
        self._syntax: CellSyntax | None = None
        self.forked = False
        self._host: Host = NullHost() if host is None else host
        self._owns_timers = timers is None
        self._timers = TimerThread() if timers is None else timers
        self._blocking = BlockingThread()
        self.canceller = Canceller(self._host, self._timers, self._blocking)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = ""
        self._blocking_policy = config.blocking
        if host is None and config.blocking == "auto":
            # The loop is the caller's: what it has to serve is nothing that this executor could know.
            self._blocking_policy = "thread"
        self._loop_serves = ""
        """Why the running cell is on the thread for blocking code, if the loop's work is the reason."""
        self._context = contextvars.copy_context()
        self._queue: deque[tuple[WorkerExecution, DoneCallback]] = deque()
        self._starting = False
        self._running: WorkerExecution | None = None
        self._done_callback: DoneCallback | None = None
        self._cell_number: int | None = None
        """The number under which the running cell's value is recorded; None if it is not."""
        self._mode_counts = {mode.value: 0 for mode in ExecutionMode}
        self._errors = 0
        self._executions = 0

    def use_syntax(self, syntax: CellSyntax) -> None:
        """Have cells be what `syntax` makes Python of. Called before the first cell."""
        self._syntax = self.compiler.translator = syntax

    # --- asking --------------------------------------------------------------------------------------

    @property
    def stats(self) -> dict[str, Any]:
        """`executions`, `mode_counts` (by ExecutionMode), `errors` and `ast_transforms` so far."""
        return {
            "executions": self._executions,
            "mode_counts": {mode: self._mode_counts[mode.value] for mode in ExecutionMode},
            "errors": self._errors,
            "ast_transforms": self.compiler.ast_transforms,
        }

    @property
    def running(self) -> WorkerExecution | None:
        """The execution that has started and not ended, or None."""
        return self._running

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and no task that the code created is alive."""
        return self._running is None and not self.coroutine_manager.tasks

    @property
    def queued(self) -> int:
        """How many executions wait for their turn."""
        return len(self._queue)

    @property
    def blocking_thread_id(self) -> int | None:
        """Identifier of the thread for blocking code, or None before it is started."""
        return self._blocking.ident

    def call_in_context(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the context that cells run in, between executions; return its value."""
        return self._context.run(function, *arguments)

    def call_on_blocking_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on the thread of cells that block, between executions; return its value."""
        return self._blocking.call(function, *arguments)

    def analyze_execution_mode(self, code: str) -> ExecutionMode:
        """Return the mode in which `code` would run, given what the namespace holds now.

        Args:
            code: the source of one cell. It is compiled and not run.

        Returns:
            Its mode; UNKNOWN when it does not compile.
        """
        try:
            cell = self.compiler.compile(code)
        except CompilationError:
            return ExecutionMode.UNKNOWN
        return cell.mode(self.namespace.namespace)

    # --- running -------------------------------------------------------------------------------------

    async def execute(self, code: str) -> Any:
        """Run code after what was submitted before it, and return its value.

        An error carries notes that name the execution, its mode and the session.

        Args:
            code: the source of one cell.

        Returns:
            The value of its last statement, or None when that has no value.

        Raises:
            CompilationError: (a SyntaxError) the code does not compile.
            BaseException: whatever the code raised.
            TimeoutError: it took longer than `max_execution_time`.
        """
        loop = get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._ids_made += 1
        execution = WorkerExecution(f"{self.session_id}-{self._ids_made}", code)

        def done(execution: WorkerExecution, outcome: CellOutcome) -> None:
            if future.done():
                return
            if outcome.error is None:
                future.set_result(outcome.value)
            elif issubclass(type(outcome.error), StopIteration):
                # A future refuses a StopIteration, as a coroutine could not raise it.
                future.set_exception(RuntimeError(f"the code raised {outcome.error!r}"))
            else:
                future.set_exception(outcome.error)

        self.submit(execution, done)
        try:
            return await future
        except CancelledError:
            if not future.done() or future.cancelled():
                self.cancel(execution.execution_id, "cancelled")
            raise
        except BaseException as error:
            _add_context(error, execution, self.session_id)
            raise

    _ids_made = 0

    def submit(self, execution: WorkerExecution, done: DoneCallback) -> None:
        """Run an execution when its turn comes.

        Args:
            execution: what to run.
            done: called exactly once, on the loop's thread, with the execution and its outcome.
        """
        if self._queue or self._starting or self._running is not None:
            self._queue.append((execution, done))
            self.start_queued()
            return
        self._starting = True
        try:
            self._start(execution, done)
        finally:
            self._starting = False
        if self._queue:
            self.start_queued()

    def start_queued(self) -> None:
        """Start the executions whose turn it is, unless one runs."""
        if self._starting:
            return
        self._starting = True
        try:
            while self._queue and self._running is None:
                self._start(*self._queue.popleft())
                if (
                    self.coroutine_manager.tasks
                    and self._queue
                    and self._running is None
                    and self._loop is not None
                ):
                    # The code's tasks have a turn between two cells.
                    self._host.flush_held_results()
                    self._loop.call_soon(self.start_queued)
                    return
        finally:
            self._starting = False

    def _start(self, execution: WorkerExecution, done: DoneCallback) -> None:
        if self._loop is None:
            self._loop = get_running_loop()
            self._loop_thread = threading.current_thread().name
        self._executions += 1
        self._running, self._done_callback = execution, done
        self.canceller.execution_started(execution, self._loop)
        self._cell_number = None
        execution.path = CallPath(execution, "")
        execution.started = perf_counter()
        execution.started_boottime = clock_gettime(CLOCK_BOOTTIME)
        self._host.execution_started(execution)
        # Each cell warns of its own lines, whatever was warned of in lines of the same number before.
        self.namespace.namespace.pop("__warningregistry__", None)
        runner_globals.pop("__warningregistry__", None)
        try:
            cell = self._compile(execution)
            mode = cell.fixed_mode or cell.mode(self.namespace.namespace).value
        except Exception as error:  # a CompilationError; or the code has broken what compiles
            self._record_mode(execution, ExecutionMode.UNKNOWN.value)
            self._finish_with_error(execution, error)
            return
        self._record_mode(execution, mode)
        execution.is_assigned = cell.is_assigned
        if not cell.prepared:
            prepare_cell(cell, self.namespace.namespace)
        if execution.store_history:
            number = self.namespace.record_input(cell.source if self._syntax is None else execution.code)
            self._cell_number = None if cell.is_assigned else number
        timeout = self.config.max_execution_time if execution.timeout is None else execution.timeout
        if timeout is not None:
            execution.timeout = timeout
            self.canceller.start_timeout(timeout)
        if not cell.was_fast:
            self._host.flush_held_results()
        if mode == "top_level_await":
            self._run_as_task(execution, cell)
        elif mode == "blocking_sync" and self._goes_to_thread(self._loop):
            self._run_on_blocking_thread(execution, cell)
        elif mode == "blocking_sync":
            loop_is_free = self._host.watch_input()
            try:
                self._run_on_loop_thread(execution, cell)
            finally:
                loop_is_free()
        else:
            self._run_on_loop_thread(execution, cell)

    def _goes_to_thread(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a cell that blocks runs on the thread for that, as things are when it begins."""
        self._loop_serves = ""
        if self._blocking_policy == "auto":
            self._loop_serves = what_loop_serves(loop, self.coroutine_manager.tasks)
            return bool(self._loop_serves)
        return self._blocking_policy == "thread"

    def _record_mode(self, execution: WorkerExecution, mode: str) -> None:
        self._mode_counts[mode] += 1
        execution.mode = mode

    def _compile(self, execution: WorkerExecution) -> CompiledCell:
        place = Place(execution.filename, execution.first_line) if execution.filename else None
        try:
            return self.compiler.compile(execution.code, execution.result_mode, place)
        except CompilationError as error:
            source = strip_prompts(execution.code)
            cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
            error.suggestion = ErrorRecovery.handle_compilation_error(cause, source)
            if error.suggestion is None or not self.config.auto_fix:
                raise
            return self.compiler.compile(error.suggestion, execution.result_mode, place)

    def _run_on_loop_thread(self, execution: WorkerExecution, cell: CompiledCell) -> None:
        execution.where = "main"
        outcome = self._run_and_catch(execution, cell)
        if self.forked:
            exit_forked_child(outcome.error)
        # One that blocks may take long the next time, however short it took.
        cell.was_fast = outcome.duration < _QUICK_SECONDS and execution.mode != "blocking_sync"
        self.compiler.apply_future_flags(cell)
        self._finish(execution, outcome)
        if execution.captured:
            # Earlier results must not be held back: what this cell writes would be taken for theirs.
            cell.was_fast = False
        # An error's traceback leads to this frame, which would lead to the error: a cycle that keeps all
        # that the code's frames hold. Here and in the other two routes.
        del outcome

    def _run_as_task(self, execution: WorkerExecution, cell: CompiledCell) -> None:
        assert self._loop is not None
        self._context.run(current_path.set, execution.path)
        # Not by the loop's task factory: a cell's own task is not one that the code created.
        self.canceller.task = Task(self._task_body(execution, cell), loop=self._loop, context=self._context)

    async def _task_body(self, execution: WorkerExecution, cell: CompiledCell) -> None:
        # Only now: a task that is cancelled before its first step never runs, so nothing would end.
        execution.where = "task"
        self.canceller.deliver_cancel()
        try:
            try:
                cell_code = await_cell(cell, self.namespace.namespace)
                if self._syntax is not None:
                    cell_code = await_between_events(self._syntax, execution, cell_code)
                value = await cell_code
            finally:
                remove_user_hooks()
            encoded = call_user_code(self._host.encode_value, execution, value)
            value = None if value is NO_VALUE else value
            outcome = CellOutcome(value, None, encoded, perf_counter() - execution.started)
        except BaseException as raised:
            outcome = self._error_outcome(execution, raised, call_user_code)
        if self.forked:
            exit_forked_child(outcome.error)
        self.compiler.apply_future_flags(cell)
        self._finish(execution, outcome)
        del outcome

    def _run_on_blocking_thread(self, execution: WorkerExecution, cell: CompiledCell) -> None:
        loop = self._loop
        assert loop is not None
        execution.where = "thread"

        def job() -> None:
            outcome = self._run_and_catch(execution, cell)
            if self.forked:
                exit_forked_child(outcome.error)
            loop.call_soon_threadsafe(finish, outcome)
            del outcome

        def finish(outcome: CellOutcome) -> None:
            self.compiler.apply_future_flags(cell)
            self._finish(execution, outcome)
            self.start_queued()

        self._blocking.run(job)

    def _run_and_catch(self, execution: WorkerExecution, cell: CompiledCell) -> CellOutcome:
        """Run a cell and catch every exception, also an interrupt that is raised just outside of the code."""
        try:
            arguments = cell, self.namespace.namespace, self._host.encode_value, execution
            if self._syntax is None:
                value, encoded = self._context.run(run_and_encode, *arguments)
            else:
                value, encoded = self._context.run(
                    run_between_events, self._syntax, execution, run_and_encode, *arguments
                )
        except BaseException as raised:
            return self._error_outcome(execution, raised, self._context.run, call_user_code)
        value = None if value is NO_VALUE else value
        return CellOutcome(value, None, encoded, perf_counter() - execution.started)

    def _error_outcome(
        self, execution: WorkerExecution, raised: BaseException, *run: Callable[..., Any]
    ) -> CellOutcome:
        """Return the outcome of a failed cell, encoded by way of `run`: the error's `__str__` may hang."""
        error = self._convert_cancelled_error(execution, raised)
        drop_outer_own_frames(error)
        if self._blocking.ident is not None:
            on_blocking = execution.where == "thread"
            served = self._loop_serves if on_blocking else ""
            add_thread_note(error, on_blocking=on_blocking, served=served, loop_thread=self._loop_thread)
        call, *through = run
        encoded: Any = None
        try:
            if sys.excepthook is not EXCEPTHOOK and execution.cancel_reason is None:
                stopped = self._call_excepthook(execution, error, *run)
                error = error if stopped is None else stopped
            encoded = call(*through, self._host.encode_error, execution, error)
        except BaseException:
            # The error's own code failed, or a cancel came; the host says that it could not be described.
            encoded = None
        return CellOutcome(None, error, encoded, perf_counter() - execution.started)

    def _call_excepthook(
        self, execution: WorkerExecution, error: BaseException, *run: Callable[..., Any]
    ) -> BaseException | None:
        """Call the code's own hook by way of `run`; return what a cancel has raised in it, if one came."""
        call, *through = run
        for function in (call_excepthook, print_failed_excepthook):
            try:
                call(*through, function, error)
            except BaseException as failed:
                error = failed
                if execution.cancel_reason is not None:
                    return self._convert_cancelled_error(execution, failed)
            else:
                break
        return None

    def _convert_cancelled_error(self, execution: WorkerExecution, error: BaseException) -> BaseException:
        """Return the error that the cancel's reason asks for in place of a task's CancelledError."""
        reason = execution.cancel_reason
        if reason is None or reason == "cancelled" or not issubclass(type(error), CancelledError):
            return error
        wanted = make_cancel_error(reason, execution.execution_id, execution.timeout)
        wanted.__cause__ = error
        return wanted

    def _finish_with_error(self, execution: WorkerExecution, error: BaseException) -> None:
        self._finish(execution, self._error_outcome(execution, error, self._context.run, call_user_code))

    def _finish(self, execution: WorkerExecution, outcome: CellOutcome) -> None:
        dropped = self.canceller.dropped_error()
        if dropped is not None and outcome.error is None:
            # It has overrun its time, or was cancelled, and did not even learn of it.
            outcome = self._error_outcome(execution, dropped, self._context.run, call_user_code)
        self.canceller.execution_ended()
        error = outcome.error
        if error is not None:
            self._errors += 1
            self.namespace.namespace["_last_exception"] = error
            remember_last_error(error)
        self._host.execution_ended(execution)
        in_task = execution.where == "task"
        execution.where = "ended"
        execution.path = None
        done, self._done_callback = self._done_callback, None
        self._running = None
        if done is not None:
            done(execution, outcome)
        # After the outcome has been sent, so that the client need not wait for it; before anything else runs.
        if error is None and self._cell_number is not None:
            self.namespace.record_output(self._cell_number, outcome.value)
        self.metrics.record_execution(execution.mode, outcome.duration, success=error is None)
        self._host.repair()
        if self._queue and in_task and self._loop is not None:
            # Not from within this task: the next execution would take it for its own.
            self._loop.call_soon(self.start_queued)

    # --- stopping ------------------------------------------------------------------------------------

    def cancel(self, execution_id: str, reason: CancelReason) -> bool:
        """Cancel an execution, running or queued. A second cancel of a running one raises at every line.

        Args:
            execution_id: which one.
            reason: why; decides which exception the code sees.

        Returns:
            Whether there is such an execution.
        """
        known = self.request_cancel(execution_id, reason)
        self.canceller.deliver_cancel()
        return known

    def request_cancel(self, execution_id: str, reason: CancelReason, timeout: float | None = None) -> bool:
        """Record a cancel, which `canceller.deliver_cancel` carries out; a queued execution ends at once.

        Args:
            execution_id: which one.
            reason: why; decides which exception the code sees.
            timeout: the limit in seconds that the caller has seen passed, for the error's text.

        Returns:
            Whether there is such an execution.
        """
        running = self._running
        if running is not None and running.execution_id == execution_id:
            if timeout is not None:
                running.timeout = timeout
            self.canceller.request_cancel(running, reason)
            return True
        for entry in self._queue:
            execution, done = entry
            if execution.execution_id == execution_id:
                self._queue.remove(entry)
                execution.cancel_reason = reason
                execution.where = "ended"
                error = CancellationError(f"execution {execution_id!r} was cancelled before it began")
                encoded = self._host.encode_error(execution, error)
                done(execution, CellOutcome(None, error, encoded, 0.0))
                return True
        return False

    def close(self) -> int:
        """Cancel every queued and running execution and every task of the code.

        Returns:
            How many tasks were cancelled.
        """
        for execution, _ in list(self._queue):
            self.cancel(execution.execution_id, "cancelled")
        if self._running is not None:
            self.cancel(self._running.execution_id, "cancelled")
        self._blocking.stop()
        if self._owns_timers:
            self._timers.stop()
        return self.coroutine_manager.cleanup()


def _add_context(error: BaseException, execution: WorkerExecution, session_id: str) -> None:
    """Add notes that say which execution raised an error; in a session its `error` message says so."""
    notes = (
        f"Execution ID: {execution.execution_id}",
        f"Execution mode: {execution.mode}",
        f"Session: {session_id}",
    )
    for note in notes:
        add_note(error, note)


_QUICK_SECONDS: Final = 0.0005
"""How long a cell may take, by its last run, to start while earlier results are held back."""
