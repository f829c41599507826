"""The session: one loop, one reader, and a table from message type to handler."""

import asyncio
import os
import sys
from asyncio import Task  # by name: the code may replace asyncio's own
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pyrepl3_schemas.constants import PROTOCOL
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import (
    CallResponse,
    Cancel,
    Checkpoint,
    Complete,
    Error,
    Execute,
    FromWorker,
    GetStats,
    Hello,
    InputResponse,
    Inspect,
    Ping,
    Ready,
    Restore,
    Shutdown,
    ToWorker,
)
from pyrepl3_worker.code.import_control import ImportController
from pyrepl3_worker.config import ExecutorConfig
from pyrepl3_worker.confinement import in_force
from pyrepl3_worker.errors import CancellationError
from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.execution.host import CellOutcome
from pyrepl3_worker.execution.tasks import EventLoopCoordinator
from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.host_calls.calls import HostCaller
from pyrepl3_worker.interrupts.child_processes import call_before_spawn, kill_children
from pyrepl3_worker.interrupts.signals import Interrupt, runs_loop, wait_readable
from pyrepl3_worker.interrupts.timers import TimerThread
from pyrepl3_worker.isolation.builtins_guard import snapshot
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.output.collector import OutputCollector
from pyrepl3_worker.rendering.exceptions import describe
from pyrepl3_worker.session import patched_functions
from pyrepl3_worker.session.checkpoint_requests import CheckpointRequests
from pyrepl3_worker.session.process_limits import limit_memory
from pyrepl3_worker.session.queries import Queries
from pyrepl3_worker.session.repair import Repair
from pyrepl3_worker.session.result_messages import ResultEncoder, display_for
from pyrepl3_worker.wire.busy_poll import BusyPoll
from pyrepl3_worker.wire.stdio import Stdio
from pyrepl3_worker.wire.transport import FrameReader, FrameSender

# The words are fixed by the protocol. "doorbell" is the wire's name for the wake-up signal.
FEATURES: Final = ["capabilities", "checkpoint", "complete", "display", "doorbell", "inspect"]
_MOST_STRAYS: Final = 1000
"""Exceptions that may strike the loop itself before it is taken to be broken."""
_LAST_GRACE: Final = 2.0
_FOR_CODE: Final = 0.9  # of the grace; what is left is for exit handlers


class WorkerSession:
    """Serves one parent. Made by `open_session` in `__main__`, once `hello` has come."""

    def __init__(
        self,
        hello: Hello,
        loop: asyncio.AbstractEventLoop,
        stdio: Stdio,
        reader: FrameReader,
        waiting: list[ToWorker],
    ) -> None:
        """Get everything ready and say so. `waiting` came together with `hello`."""
        config = hello.config
        self._loop = loop
        self._stdio = stdio
        self._reader = reader
        self._config: ExecutorConfig = config
        self._writer = FrameSender(stdio.writer, config.max_frame_bytes)
        self._stopping = False
        self._strays = 0
        self._advancing = False
        self._busy_poll = BusyPoll(reader.fd)
        self._namespace = NamespaceManager()
        self._namespace.install()
        timers = TimerThread()
        self._timers = timers
        self._output = OutputCollector(self._writer, stdio, timers, config.max_output_bytes)
        self._executor = AsyncExecutor(
            self._namespace, hello.session_id, config=config, host=self, timers=timers
        )
        self._calls = HostCaller(
            self._send_in_order,
            self._pump,
            self._executor.canceller.wakeup.send,
            lambda: self._executor.blocking_thread_id,
            reader.fd,
        )
        self._coordinator = EventLoopCoordinator(loop, self._executor.coroutine_manager)
        self._coordinator.on_nested_loop = self._read_on_nested_loop
        self._output.use_wakeup(self._executor.canceller.wakeup)
        self._repair = Repair(stdio, self._executor.canceller.wakeup, self._namespace.namespace)
        self._encoder = ResultEncoder(config)
        self._checkpoint_requests = CheckpointRequests(
            self._namespace,
            self._executor.canceller,
            timers,
            self._repair,
            self._writer,
            config.max_frame_bytes,
        )
        self._queries = Queries(
            self._namespace, self._executor, self._output, self._writer, self._count_waiting
        )
        self._ordered: deque[Execute | Checkpoint | Restore] = deque()
        self._handlers: dict[type[ToWorker], Callable[[Any], None]] = {
            Execute: self._ordered.append,
            InputResponse: self._calls.deliver_input,
            CallResponse: self._calls.deliver_call,
            Cancel: self._on_cancel,
            Checkpoint: self._ordered.append,
            Restore: self._ordered.append,
            Complete: self._queries.complete,
            Inspect: self._queries.inspect,
            Ping: self._queries.ping,
            GetStats: self._queries.stats,
            Shutdown: self._on_shutdown,
            Hello: self._on_second_hello,
        }
        self._prepare(hello)
        self._dispatch(waiting)
        # On the loop, which is not running yet.
        loop.call_soon(self._advance)

    def _prepare(self, hello: Hello) -> None:
        config, loop, names = self._config, self._loop, self._namespace.namespace
        loop.set_task_factory(self._executor.coroutine_manager.task_factory)
        patched_functions.install_patches(self._calls, self._output, self._coordinator)
        call_before_spawn(self._output.flush, self._executor.canceller.remember_children)
        self._display = names["display"] = display_for(self._send_in_order, self._current_id)
        for spec in hello.capabilities:
            names[spec.name] = self._calls.capability(spec.name, spec.signature, spec.doc)
        os.register_at_fork(after_in_child=self._after_fork)
        self._executor.canceller.wakeup.install()
        ImportController(config, names).install()
        snapshot()
        confinement = in_force.active()
        if config.max_memory_usage is not None:
            # A thread's stack counts too, so it must be there before memory can run short.
            self._timers.start()
            limit_memory(config.max_memory_usage)
            confinement.append("memory")
        self._writer.send(
            Ready(
                protocol=PROTOCOL,
                pid=os.getpid(),
                python=sys.version.split(maxsplit=1)[0],
                features=FEATURES,
                max_frame_bytes=config.max_frame_bytes,
                confinement=confinement,
            )
        )
        loop.add_reader(self._reader.fd, self._on_readable)

    # --- the loop ------------------------------------------------------------------------------------

    @runs_loop
    def run(self) -> None:
        """Serve until the session ends."""
        while not self._stopping:
            try:
                # Code may stop the loop under us; it goes on.
                self._loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # A task of the code raised it; asyncio lets these two through, and has noted it there.
                continue
            except BaseException as error:
                # A signal handler of the code's, say, that struck while the loop was at rest.
                self._strays += 1
                if self._strays > _MOST_STRAYS:
                    raise
                self._output.write("stderr", describe(error, "exception", None).traceback)
                self._output.flush()

    def finish(self) -> None:
        """Let go: exit handlers run, for a moment, and all output goes out."""
        import atexit

        self._timers.call_later(_LAST_GRACE, lambda: os._exit(0))
        kill_children(0.0)
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportAttributeAccessIssue] - the interpreter's own finalization would wait for the code's threads
        # The parent may have gone already.
        with suppress(OSError):
            self._output.flush()

    def _on_readable(self) -> None:
        self._busy_poll.message_arrived()
        self._read()
        self._executor.canceller.deliver_cancel()
        self._advance()
        if self._executor.is_idle and not self._stopping:
            self._busy_poll.poll()

    def _read(self) -> None:
        """Read what has arrived and dispatch it."""
        try:
            messages = self._reader.read()
        except RemoteProtocolError as error:
            self._give_up(error)
            return
        if messages is None:
            # The parent has closed its end, or is gone.
            self._loop.remove_reader(self._reader.fd)
            self._on_shutdown(Shutdown(reason="end of stream", grace=_LAST_GRACE))
            return
        self._dispatch(messages)
        if self._reader.decoder.error is not None:  # known already; more bytes to raise it may never come
            self._give_up(self._reader.decoder.error)

    def _dispatch(self, messages: list[ToWorker]) -> None:
        for message in messages:
            self._handlers[type(message)](message)

    def read_messages(self) -> None:
        """In the doorbell's handler, while code holds this thread: read, and start nothing now."""
        self._read()
        if self._ordered:
            # The fd will not call again for what has been read.
            self._loop.call_soon_threadsafe(self._advance)

    def _pump(self) -> None:
        """Block this thread, in a call of the code's, until something has come; dispatch it."""
        self._executor.canceller.raise_if_cancelled()
        wait_readable(self._reader.poller)
        self._read()
        self._executor.canceller.raise_if_cancelled()

    def _read_on_nested_loop(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        loop.add_reader(self._reader.fd, self._on_nested_readable)

        def undo() -> None:
            loop.remove_reader(self._reader.fd)

        return undo

    def _on_nested_readable(self) -> None:
        self._read()
        self._executor.canceller.deliver_cancel()

    # --- handlers ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start what has come, in order. Checkpoints wait until what came before them is done."""
        self._advancing = True
        try:
            while self._ordered and self._start_next():
                if self._executor.coroutine_manager.tasks and self._ordered:
                    # They too have a turn between two cells.
                    self._writer.flush()
                    self._loop.call_soon(self._advance)
                    return
        finally:
            self._advancing = False

    def _count_waiting(self) -> int:
        return sum(isinstance(message, Execute) for message in self._ordered)

    def _start_next(self) -> bool:
        """Start what is first; False if it has to wait."""
        ordered, executor = self._ordered, self._executor
        message = ordered[0]
        if isinstance(message, Execute):
            ordered.popleft()
            execution = WorkerExecution(
                message.execution_id,
                message.code,
                message.timeout,
                message.result_mode,
                store_history=message.store_history,
            )
            executor.submit(execution, self._on_done)
            return True
        if executor.running is None and not executor.queued:
            ordered.popleft()
            self._checkpoint_requests.answer(message)
            return True
        return False

    def _on_cancel(self, message: Cancel) -> None:
        if self._executor.request_cancel(message.execution_id, message.reason):
            return
        for waiting in self._ordered:
            if isinstance(waiting, Execute) and waiting.execution_id == message.execution_id:
                self._ordered.remove(waiting)
                self._executor.canceller.cancel_loop_holder()
                execution = WorkerExecution(waiting.execution_id, waiting.code)
                error = CancellationError(f"execution {message.execution_id!r} was cancelled before it began")
                execution.cancel_reason = message.reason
                self._on_done(execution, CellOutcome(None, error, self.encode_error(execution, error), 0.0))
                return

    def _on_shutdown(self, message: Shutdown) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._ordered.clear()
        Task(self._wind_down(set(self._executor.coroutine_manager.tasks)), loop=self._loop)
        self._executor.close()
        self._loop.call_later(message.grace * _FOR_CODE, self._loop.stop)

    async def _wind_down(self, cancelled: set[Task[Any]]) -> None:
        """Wait for what was cancelled, then stop the loop."""
        await self._executor.canceller.wait_ended()
        self._executor.coroutine_manager.cleanup(
            cancelled
        )  # what the execution has started while it cleaned up
        while tasks := list(self._executor.coroutine_manager.tasks):
            await asyncio.wait(tasks)
        await self._coordinator.flush_queue()
        self._loop.stop()

    def _on_second_hello(self, message: Hello) -> None:
        self._send_protocol_error(
            f"a second hello, for session {message.session_id!r}: a worker has one session"
        )

    def _give_up(self, error: RemoteProtocolError) -> None:
        """End, and say why once: code that waits for an answer here would read on for ever."""
        if self._loop.remove_reader(self._reader.fd):
            self._send_protocol_error(f"unreadable: {error}")
            self._timers.call_later(_LAST_GRACE, lambda: os._exit(0))  # whatever the code does
            self._on_shutdown(Shutdown(reason="unreadable", grace=0.0))

    def _send_protocol_error(self, text: str) -> None:
        self._writer.send(Error("protocol", "RemoteProtocolError", text, traceback=text))

    # --- the executor's host -------------------------------------------------------------------------

    def execution_started(self, execution: WorkerExecution) -> None:
        """Attribute what is written without a flow of its own."""
        self._output.begin(execution)
        self._calls.running = execution

    def encode_value(self, execution: WorkerExecution, value: Any) -> Any:
        """Prepare a value for its `result`."""
        return self._encoder.encode_value(execution, value)

    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Any:
        """Prepare an exception for its `error`."""
        return self._encoder.encode_error(execution, error)

    def flush_held_results(self) -> None:
        """Let go of the results that were held back for those after them."""
        self._writer.flush()

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Wake the blocking thread from an `input()`, a call or a sleep; say whether it was in one."""
        return self._calls.interrupt_blocking(interrupt)

    def execution_ended(self, execution: WorkerExecution) -> None:
        """Send what was written, and see whether more waits in the capture pipes."""
        self._repair.recursion_limit()
        if "matplotlib.pyplot" in sys.modules:
            from pyrepl3_worker.rendering.display import flush_figures

            flush_figures(self._display)
        self._calls.end(execution)
        self._output.finish(execution)
        if self._repair.standard_fds():
            execution.captured = True
            # A parent that has sent nothing more drains when it takes the result, and so before it can.
            followed = self._ordered or self._executor.queued or self._reader.has_more()
            execution.undrained = not (followed and self._output.wait_drained())
        self._output.running = self._calls.running = None

    def repair(self) -> None:
        """Mend what the code may have broken; send what finalizers wrote while its outcome was sent."""
        self._repair.builtins()
        self._output.flush_deferred()

    def _on_done(self, execution: WorkerExecution, outcome: CellOutcome) -> None:
        """Send the one `result` or `error` of an execution; held for the next one's if that follows now."""
        message = self._encoder.message(execution, outcome)
        hold = not execution.captured and self._executor.running is None
        hold = hold and bool(self._ordered or self._executor.queued)
        try:
            self._writer.send(message, hold=hold)
        except LocalProtocolError as error:
            self._writer.send(self._encoder.too_large(execution, outcome, error))
        if self._ordered and not self._advancing and self._executor.running is None:
            self._loop.call_soon(self._advance)

    # --- odds and ends -------------------------------------------------------------------------------

    def _send_in_order(self, message: FromWorker) -> None:
        self._output.flush()
        self._writer.send(message)

    def _current_id(self) -> str | None:
        running = self._executor.running
        return None if running is None else running.execution_id

    def _after_fork(self) -> None:
        """In a child that the code forked: be nobody's worker."""
        self._stdio.abandon()
        self._executor.forked = True
        self._calls.forked = True
        self._output.after_fork()
