"""WorkerSession: the worker's event loop, and a table from message type to handler."""

import asyncio
import builtins
import os
import sys
from asyncio import Task  # by name: the code may replace asyncio's own
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from select import poll
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import (
    CallResponse,
    Cancel,
    CapabilitySpec,
    Checkpoint,
    Chunk,
    Complete,
    Error,
    Execute,
    FromWorker,
    GetStats,
    Hello,
    InputResponse,
    Inspect,
    Offer,
    Ping,
    Ready,
    Request,
    Restore,
    Shutdown,
    ToWorker,
    Withdraw,
)
from pyrepl3_schemas.reserved_names import SET_VALUES
from pyrepl3_worker.code.import_control import ImportController
from pyrepl3_worker.config import ExecutorConfig
from pyrepl3_worker.confinement import in_force
from pyrepl3_worker.errors import CancellationError
from pyrepl3_worker.execution.event_loop import EventLoopCoordinator
from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.execution.host import CellOutcome
from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.host_calls.calls import HostCaller
from pyrepl3_worker.interrupts.child_processes import kill_children, watch_processes
from pyrepl3_worker.interrupts.signals import Interrupt, runs_loop, wait_readable
from pyrepl3_worker.interrupts.timers import TimerThread
from pyrepl3_worker.isolation.after_import import after_import
from pyrepl3_worker.isolation.builtins_guard import provide, snapshot
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.output.collector import OutputCollector
from pyrepl3_worker.output.displays import DisplaySender
from pyrepl3_worker.rendering.exceptions import describe_exception
from pyrepl3_worker.rendering.own_lines import own_lines
from pyrepl3_worker.session import patched_functions
from pyrepl3_worker.session.checkpoint_requests import SECOND_PROTOCOL, CheckpointRequests
from pyrepl3_worker.session.displays import SessionDisplays
from pyrepl3_worker.session.process_limits import limit_memory
from pyrepl3_worker.session.queries import Queries
from pyrepl3_worker.session.repair import Repair
from pyrepl3_worker.session.requests import RequestServer
from pyrepl3_worker.session.result_messages import ResultEncoder
from pyrepl3_worker.wire.busy_poll import BusyPoll
from pyrepl3_worker.wire.stdio import Stdio
from pyrepl3_worker.wire.transport import FrameReader, FrameSender

if TYPE_CHECKING:  # loaded where it is asked for
    from pyrepl3_worker.inspection.changes import NamespaceWatch
    from pyrepl3_worker.session.variables import Variables

# The words are fixed by the protocol. "doorbell" is the wire's name for the wake-up signal.
FEATURES: Final = ["capabilities", "checkpoint", "complete", "display", "doorbell", "inspect"]
_PYPLOT: Final = "matplotlib.pyplot"
_MAX_LOOP_ERRORS: Final = 1000
"""How many exceptions may be raised in the loop's own code before the session ends."""
_LOOK_SECONDS: Final = 0.5
"""Between two looks whether the client is gone, while a cell that blocks holds the loop."""
_EXIT_GRACE_SECONDS: Final = 2.0
_CODE_SHARE_OF_GRACE: Final = 0.9  # of the grace; what is left is for exit handlers


class WorkerSession:
    """Serves one client. Made by `startup.serve` when `hello` has arrived."""

    def __init__(
        self,
        hello: Hello,
        loop: asyncio.AbstractEventLoop,
        stdio: Stdio,
        reader: FrameReader,
        early_messages: list[ToWorker],
    ) -> None:
        """Set up the process and send `ready`.

        Args:
            hello: the client's first message.
            loop: the session's loop, which does not run yet.
            stdio: the worker's fds.
            reader: reads the client's messages.
            early_messages: messages that arrived together with `hello`.
        """
        own_lines.hide()
        if hello.work_directory:
            os.chdir(hello.work_directory)
        config = hello.config
        self._loop = loop
        self._run_loop = loop.run_forever  # as it is before it is patched for the code's loops
        self._stdio = stdio
        self._reader = reader
        self._config: ExecutorConfig = config
        self._writer = FrameSender(stdio.writer, config.max_frame_bytes, hello.protocol)
        self._stopping = False
        self._loop_is_held = self._watches_input = False
        self._input_end = poll()
        self._input_end.register(reader.fd, 0)  # its end is told without being asked for
        self._loop_errors = 0
        self._starting = False
        self._busy_poll = BusyPoll(reader.fd)
        self._namespace = NamespaceManager()
        self._namespace.install()
        timers = TimerThread()
        self._timers = timers
        rest = hello.max_rest_bytes if hello.protocol >= SECOND_PROTOCOL else 0
        self._output = OutputCollector(self._writer, stdio, timers, config.max_output_bytes, rest)
        self._executor = AsyncExecutor(
            self._namespace, hello.session_id, config=config, host=self, timers=timers
        )
        self._host_caller = HostCaller(
            self._send_after_output,
            self._writer.send,
            self._wait_and_dispatch,
            self._executor.canceller.wakeup.send,
            lambda: self._executor.blocking_thread_id,
            reader.fd,
            self._read_on,
            self._executor.canceller.unwind,
            sends_abandoned=hello.protocol >= SECOND_PROTOCOL,
        )
        self._coordinator = EventLoopCoordinator(
            loop, self._executor.coroutine_manager, self._executor.canceller
        )
        self._coordinator.renew_reader = self._hang_reader
        self._nested_waits: Counter[asyncio.AbstractEventLoop] = Counter()
        """For each loop that code runs inside of the session's, how many host calls are awaited there."""
        self._output.attach_wakeup_signal(self._executor.canceller.wakeup)
        self._behind: dict[str, object] = {}
        """What stands in the builtins again, if anything, when the host function of a name is withdrawn."""
        self._repair = Repair(stdio, self._executor.canceller.wakeup, self._namespace.namespace)
        sender = DisplaySender(
            self._output,
            self._send_after_output,
            config.max_display_bytes,
            config.max_frame_bytes,
            sends_late=hello.protocol >= SECOND_PROTOCOL,
        )
        self._displays = SessionDisplays(sender)
        self._encoder = ResultEncoder(config, self._displays.bundle_of if "data" in hello.report else None)
        self._checkpoint_requests = CheckpointRequests(
            self._namespace,
            self._executor.canceller,
            timers,
            self._repair,
            self._writer,
            config.max_frame_bytes,
            self._executor.call_in_context,
            self._executor.call_on_blocking_thread,
            hello.work_directory,
            sends_progress=hello.protocol >= SECOND_PROTOCOL,
        )
        self._queries = Queries(
            self._namespace, self._executor, self._output, self._writer, self._count_queued_executions, timers
        )
        self._variables: Variables | None = None
        self._request_server = RequestServer(
            self._writer, reader.fd, self._read_and_dispatch, config.max_memory_usage
        )
        self._register_requests()
        self._watch: NamespaceWatch | None = None
        self._requests: deque[Execute | Checkpoint | Restore] = deque()
        self._handlers: dict[type[ToWorker], Callable[[Any], None]] = {
            Execute: self._requests.append,
            InputResponse: self._host_caller.deliver_input,
            CallResponse: self._host_caller.deliver_call,
            Offer: self._on_offer,
            Withdraw: self._on_withdraw,
            Cancel: self._on_cancel,
            Checkpoint: self._requests.append,
            Restore: self._requests.append,
            Complete: self._queries.complete,
            Inspect: self._queries.inspect,
            Ping: self._queries.ping,
            GetStats: self._queries.stats,
            Request: self._request_server.on_request,
            Chunk: self._request_server.on_chunk,
            Shutdown: self._on_shutdown,
            Hello: self._on_second_hello,
        }
        self._set_up_process(hello)
        self._dispatch(early_messages)
        # On the loop, which is not running yet.
        loop.call_soon(self._start_requests)

    def _register_requests(self) -> None:
        def variables() -> "Variables":
            if self._variables is None:
                # By the first that asks.
                from pyrepl3_worker.session.transfer_limit import TransferLimit
                from pyrepl3_worker.session.variables import Variables

                limit = TransferLimit(self._executor, self._timers)
                self._variables = Variables(self._namespace, limit)
            return self._variables

        def background_now(_: object) -> list[str]:
            from pyrepl3_worker.session.background import background  # pools ask for it

            return background(
                self._loop, self._executor.coroutine_manager.tasks, self._host_caller.pending_count
            )

        self._request_server.register_plain("is_complete", self._queries.is_complete)
        self._request_server.register_plain("background", background_now)
        self._request_server.register("set", lambda body: variables().set(body))
        self._request_server.register("get", lambda body: variables().get(body))

    def _set_up_process(self, hello: Hello) -> None:
        config, loop = self._config, self._loop
        loop.set_task_factory(self._executor.coroutine_manager.task_factory)
        stdio = self._stdio
        patched_functions.install_patches(self._host_caller, self._output, self._coordinator, stdio.stderr)
        after_import(
            "multiprocessing.reduction",
            lambda module: patched_functions.send_definitions(module, self._namespace),
        )
        watch_processes(stdio.stderr, self._output.flush, self._executor.canceller.remember_children)
        self._displays.install()
        if config.syntax == "ipython":
            self._use_ipython()
        if hello.protocol >= SECOND_PROTOCOL:
            provide(SET_VALUES, self._host_caller.make_function(SET_VALUES))
        for spec in hello.capabilities:
            self._on_offer(spec)
        os.register_at_fork(after_in_child=self._after_fork_in_child)
        self._executor.canceller.wakeup.install()
        ImportController(config, self._namespace.namespace).install()
        snapshot()
        confinement = in_force.active()
        if config.max_memory_usage is not None:
            # A thread's stack counts too, so it must exist before memory can run short.
            self._timers.start()
            limit_memory(config.max_memory_usage)
            confinement.append("memory")
        if "changed" in hello.report and hello.protocol >= SECOND_PROTOCOL:
            from pyrepl3_worker.inspection.changes import NamespaceWatch  # few sessions ask for it

            self._watch = NamespaceWatch(self._namespace)
        self._writer.send(
            Ready(
                protocol=hello.protocol,
                pid=os.getpid(),
                python=sys.version.split(maxsplit=1)[0],
                features=FEATURES,
                max_frame_bytes=config.max_frame_bytes,
                confinement=confinement,
            )
        )
        # It delays no cell now, and later the code may have broken what imports modules.
        import pyrepl3_schemas.values  # noqa: F401 # pyright: ignore[reportUnusedImport] - as it says

        self._hang_reader()

    def _use_ipython(self) -> None:
        from pyrepl3_worker.ipython.syntax import IPythonSyntax

        syntax = IPythonSyntax(
            self._namespace, self._displays.display, lambda text: self._output.write("stderr", text)
        )
        self._executor.use_syntax(syntax)
        self._encoder.text_of = syntax.text_of

    # --- the loop ------------------------------------------------------------------------------------

    @runs_loop
    def run(self) -> None:
        """Run the loop until the session ends."""
        while not self._stopping:
            try:
                # Code may stop the loop; it is started again.
                self._run_loop()
            except (KeyboardInterrupt, SystemExit):
                # A task of the code raised it. asyncio lets these two through, and has set it on the task.
                continue
            except BaseException as error:
                # For example from a signal handler of the code that ran while the loop was idle.
                self._loop_errors += 1
                if self._loop_errors > _MAX_LOOP_ERRORS:
                    own_lines.show()
                    raise
                self._output.write("stderr", describe_exception(error, "exception", None).traceback)
                self._output.flush()

    def run_exit_handlers(self) -> None:
        """Kill the child processes, run exit handlers for a limited time, and send all output."""
        import atexit

        self._timers.call_later(_EXIT_GRACE_SECONDS, lambda: os._exit(0))
        kill_children(0.0)
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportAttributeAccessIssue] - the interpreter's own finalization would wait for the code's threads
        # The client may be gone already.
        with suppress(OSError):
            self._output.flush()

    def _on_readable(self) -> None:
        self._busy_poll.message_arrived()
        self._read_and_dispatch()
        self._executor.canceller.deliver_cancel()
        self._start_requests()
        if self._executor.is_idle and not self._stopping:
            self._busy_poll.poll()

    def _read_and_dispatch(self) -> None:
        """Read what has arrived and dispatch it."""
        try:
            messages = self._reader.read()
        except RemoteProtocolError as error:
            self._on_unreadable(error)
            return
        if messages is None:
            # The client has closed its end, or is gone.
            self._loop.remove_reader(self._reader.fd)
            self._on_shutdown(Shutdown(reason="end of stream", grace=_EXIT_GRACE_SECONDS))
            return
        self._dispatch(messages)
        if self._reader.decoder.error is not None:  # known already; more bytes to raise it may never come
            self._on_unreadable(self._reader.decoder.error)
        if self._request_server.due:
            self._request_server.answer_due()

    def _dispatch(self, messages: list[ToWorker]) -> None:
        for message in messages:
            self._handlers[type(message)](message)

    def read_messages(self) -> None:
        """Read messages in the wake-up signal's handler, while code holds this thread; start nothing now."""
        self._read_and_dispatch()
        while self._request_server.expects_more and self._reader.is_readable():
            self._read_and_dispatch()
        if self._requests:
            # The loop will not report the fd again for what has been read.
            self._loop.call_soon_threadsafe(self._start_requests)

    def _wait_and_dispatch(self) -> None:
        """Block this thread, for a host call of the code, until messages arrive; dispatch them."""
        self._executor.canceller.raise_if_cancelled()
        wait_readable(self._reader.poller)
        self._read_and_dispatch()
        self._executor.canceller.raise_if_cancelled()

    def _hang_reader(self) -> None:
        if not self._stopping:
            self._loop.add_reader(self._reader.fd, self._on_readable)

    def _read_on(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Have messages read on a loop too, until what is returned is called, if it runs inside of ours."""
        if loop is self._loop or not self._coordinator.is_on_loop_thread():
            return _do_nothing
        if not self._nested_waits[loop]:
            loop.add_reader(self._reader.fd, self._on_nested_readable)
        self._nested_waits[loop] += 1

        def undo() -> None:
            self._nested_waits[loop] -= 1
            if not self._nested_waits[loop]:
                del self._nested_waits[loop]
                if not loop.is_closed():
                    loop.remove_reader(self._reader.fd)

        return undo

    def _on_nested_readable(self) -> None:
        self._read_and_dispatch()
        self._executor.canceller.deliver_cancel()

    # --- handlers ------------------------------------------------------------------------------------

    def _start_requests(self) -> None:
        """Start requests in order. Checkpoints wait until the executions before them have ended."""
        self._starting = True
        try:
            while self._requests and self._start_first_request():
                if self._executor.coroutine_manager.tasks and self._requests:
                    # The code's tasks have a turn between two cells.
                    self._writer.flush()
                    self._loop.call_soon(self._start_requests)
                    return
        finally:
            self._starting = False

    def _count_queued_executions(self) -> int:
        return sum(isinstance(message, Execute) for message in self._requests)

    def _start_first_request(self) -> bool:
        """Start the first request; return False if it has to wait."""
        requests, executor = self._requests, self._executor
        message = requests[0]
        if isinstance(message, Execute):
            requests.popleft()
            execution = WorkerExecution(
                message.execution_id,
                message.code,
                message.timeout,
                message.result_mode,
                store_history=message.store_history,
                filename=message.filename,
                first_line=message.first_line,
            )
            executor.submit(execution, self._send_outcome)
            return True
        if executor.running is None and not executor.queued:
            requests.popleft()
            self._checkpoint_requests.answer(message)
            return True
        return False

    def _on_cancel(self, message: Cancel) -> None:
        if self._executor.request_cancel(message.execution_id, message.reason, message.timeout):
            return
        for waiting in self._requests:
            if isinstance(waiting, Execute) and waiting.execution_id == message.execution_id:
                self._requests.remove(waiting)
                self._executor.canceller.cancel_loop_holder()
                execution = WorkerExecution(waiting.execution_id, waiting.code)
                error = CancellationError(f"execution {message.execution_id!r} was cancelled before it began")
                execution.cancel_reason = message.reason
                self._send_outcome(
                    execution, CellOutcome(None, error, self.encode_error(execution, error), 0.0)
                )
                return

    def _on_shutdown(self, message: Shutdown) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._requests.clear()
        self._request_server.end()
        self._checkpoint_requests.end_now("the session ends")
        Task(self._finish_tasks_and_stop(set(self._executor.coroutine_manager.tasks)), loop=self._loop)
        self._executor.close()
        self._loop.call_later(message.grace * _CODE_SHARE_OF_GRACE, self._loop.stop)

    async def _finish_tasks_and_stop(self, cancelled: set[Task[Any]]) -> None:
        """Wait for everything that was cancelled, then stop the loop."""
        await self._executor.canceller.wait_ended()
        self._executor.coroutine_manager.cleanup(
            cancelled
        )  # what the execution has started while it cleaned up
        while tasks := list(self._executor.coroutine_manager.tasks):
            await asyncio.wait(tasks)
        await self._coordinator.flush_queue()
        self._loop.stop()

    def _on_offer(self, spec: CapabilitySpec | Offer) -> None:
        self._behind.setdefault(spec.name, vars(builtins).get(spec.name))
        function = self._host_caller.make_capability(
            spec.name, spec.signature, spec.doc, awaitable=spec.awaitable
        )
        provide(spec.name, function)

    def _on_withdraw(self, message: Withdraw) -> None:
        if message.name in self._behind:
            provide(message.name, self._behind.pop(message.name))

    def _on_second_hello(self, message: Hello) -> None:
        self._send_protocol_error(
            f"a second hello, for session {message.session_id!r}: a worker has one session"
        )

    def watch_input(self) -> Callable[[], None]:
        """Wake code that holds the loop when the client has closed the worker's input. See `Host`."""
        self._loop_is_held = True
        if not self._watches_input:  # one timer serves cells that follow each other
            self._watches_input = True
            self._timers.call_later(_LOOK_SECONDS, self._look_at_input)
        return self._loop_freed

    def _loop_freed(self) -> None:
        self._loop_is_held = False

    def _look_at_input(self) -> None:
        """Look whether the client is gone; runs on the timer thread."""
        if not self._loop_is_held:
            self._watches_input = False
            if not self._loop_is_held:
                return
            self._watches_input = True  # another cell has begun just now, and relies on this timer
        if self._input_end.poll(0):
            self._executor.canceller.wakeup.send()
        self._timers.call_later(_LOOK_SECONDS, self._look_at_input)

    def _on_unreadable(self, error: RemoteProtocolError) -> None:
        """End the session and send the reason once: code that waits for an answer would wait for ever."""
        if self._loop.remove_reader(self._reader.fd):
            self._send_protocol_error(f"unreadable: {error}")
            self._timers.call_later(_EXIT_GRACE_SECONDS, lambda: os._exit(0))  # whatever the code does
            self._on_shutdown(Shutdown(reason="unreadable", grace=0.0))

    def _send_protocol_error(self, text: str) -> None:
        self._writer.send(Error("protocol", "RemoteProtocolError", text, traceback=text))

    # --- the executor's host -------------------------------------------------------------------------

    def execution_started(self, execution: WorkerExecution) -> None:
        """Attribute output and calls that have no call path to this execution."""
        self._output.start_execution(execution)
        if self._watch is not None:
            self._watch.begin(execution.execution_id)
        self._host_caller.running = execution

    def encode_value(self, execution: WorkerExecution, value: Any) -> Any:
        """Encode a value for its `result`, then show the figures that are open."""
        encoded = self._encoder.encode_value(execution, value)
        if _PYPLOT in sys.modules:
            self._displays.flush_figures()
        return encoded

    def encode_error(self, execution: WorkerExecution, error: BaseException) -> Any:
        """Encode an exception for its `error`, then show the figures that are open."""
        encoded = self._encoder.encode_error(execution, error)
        if _PYPLOT in sys.modules and execution is self._executor.running:
            self._displays.flush_after_failure()
        return encoded

    def flush_held_results(self) -> None:
        """Send the results that were held back to be sent together with later ones."""
        self._writer.flush()

    def interrupt_blocking(self, interrupt: Interrupt) -> bool:
        """Wake the blocking thread from a host call or a sleep; return whether it was in one."""
        return self._host_caller.interrupt_blocking(interrupt)

    def execution_ended(self, execution: WorkerExecution) -> None:
        """Send what was written, and check whether more waits in the capture pipes."""
        self._repair.recursion_limit()
        self._host_caller.execution_ended()
        self._output.finish_execution(execution)
        if self._repair.standard_fds():
            execution.captured = True
            # Unless more requests wait, the client drains the pipes when it takes the result.
            followed = self._requests or self._executor.queued or self._reader.is_readable()
            execution.undrained = not (followed and self._output.wait_until_captured_is_read())
        self._output.running = self._host_caller.running = None

    def repair(self) -> None:
        """Repair what the code may have broken; send what finalizers wrote while its outcome was sent."""
        self._repair.builtins()
        self._repair.patches()
        self._output.flush_deferred()

    def _send_outcome(self, execution: WorkerExecution, outcome: CellOutcome) -> None:
        """Send the `result` or `error` of an execution, held back if another execution follows at once."""
        message = self._encoder.make_message(execution, outcome)
        if self._watch is not None:
            message = msgspec.structs.replace(message, changed=self._watch.end(execution.execution_id))
        hold = not execution.captured and self._executor.running is None
        hold = hold and bool(self._requests or self._executor.queued)
        try:
            self._writer.send(message, hold=hold)
        except LocalProtocolError as error:
            self._writer.send(self._encoder.make_too_large_error(execution, outcome, error))
        except MemoryError:
            # A value of some megabytes is copied into its frame. What is left of it is small.
            del message
            self._writer.send(self._encoder.make_message_without_value(execution, outcome), hold=hold)
        if self._requests and not self._starting and self._executor.running is None:
            self._loop.call_soon(self._start_requests)

    # --- helpers -------------------------------------------------------------------------------------

    def _send_after_output(self, message: FromWorker) -> None:
        self._output.flush()
        self._writer.send(message)

    def _after_fork_in_child(self) -> None:
        """Detach a child process that the code forked: it must not act as a worker."""
        self._stdio.detach()
        self._executor.forked = True
        self._host_caller.forked = True
        self._output.reset_in_forked_child()


def _do_nothing() -> None:
    """Do nothing: the session's loop reads."""
