"""Answers checkpoint and restore requests, whatever the code of the saved objects does."""

from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.messages import Checkpoint, Error, FromWorker, Restore
from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.confinement import in_force
from pyrepl3_worker.execution.canceller import Canceller
from pyrepl3_worker.interrupts.timers import Timer, TimerThread
from pyrepl3_worker.isolation.builtins_guard import PristineBuiltins
from pyrepl3_worker.namespace import CODE_MODULE_KEYS, NamespaceManager
from pyrepl3_worker.rendering.reprs import type_name
from pyrepl3_worker.session.repair import Repair
from pyrepl3_worker.wire.transport import FrameSender

if TYPE_CHECKING:  # loaded by the first checkpoint: a worker's start does without pickle and ast
    from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
    from pyrepl3_worker.checkpoint.time_budget import TimeBudget

SECOND_PROTOCOL: Final = 2
"""The first protocol that knows `progress` and `abandoned`."""
_PROGRESS_SECONDS: Final = 1.0


class CheckpointRequests:
    """Creates and restores a session's checkpoints, between two executions."""

    def __init__(
        self,
        namespace: NamespaceManager,
        canceller: Canceller,
        timers: TimerThread,
        repair: Repair,
        writer: FrameSender,
        max_bytes: int,
        in_context: Callable[..., Any],
        call_on_blocking_thread: Callable[..., Any],
        work_directory: str,
        *,
        sends_progress: bool,
    ) -> None:
        """Load nothing yet; read the state that the process begins with.

        Args:
            namespace: what is saved and restored.
            canceller: has the signal that stops objects' own code.
            timers: run the clock of objects' own code.
            repair: puts right what objects' own code has broken.
            writer: sends the answers.
            max_bytes: length of the longest frame.
            in_context: calls a function in the cells' context.
            call_on_blocking_thread: calls a function on the thread of cells that block.
            work_directory: the session's own directory that the client made; empty if it made none.
            sends_progress: the client knows `progress`.
        """
        self._start = InitialState()
        self._in_context = in_context
        self._call_on_blocking_thread = call_on_blocking_thread
        self._work_directory = work_directory
        self._sends_progress = sends_progress
        self._budget: TimeBudget | None = None
        self._progress_timer: Timer | None = None
        self._answering = ""
        """The checkpoint that is being created or restored."""
        self._namespace = namespace
        self._canceller = canceller
        self._timers = timers
        self._repair = repair
        self._writer = writer
        self._max_bytes = max_bytes
        self._checkpointer: Checkpointer | None = None

    def answer(self, message: Checkpoint | Restore) -> None:
        """Create or restore a checkpoint, on the loop's thread, and send the answer."""
        with PristineBuiltins():
            self._answer(message)

    def end_now(self, reason: str) -> None:
        """Have what is under way end as soon as it can."""
        if self._budget is not None:
            self._budget.end_now(reason)

    def _start_progress(self, checkpointer: "Checkpointer", checkpoint_id: str) -> None:
        thread_id = get_ident()

        def tell() -> None:
            if self._answering == checkpoint_id:
                with suppress(OSError, LocalProtocolError):  # the client is gone, or its id too long to tell
                    self._writer.send(checkpointer.position.message(checkpoint_id, thread_id))
                self._progress_timer = self._timers.call_later(_PROGRESS_SECONDS, tell)

        self._answering = checkpoint_id
        self._progress_timer = self._timers.call_later(_PROGRESS_SECONDS, tell)

    def _stop_progress(self) -> None:
        self._answering = ""
        timer, self._progress_timer = self._progress_timer, None
        if timer is not None:
            timer.cancel()

    def _answer(self, message: Checkpoint | Restore) -> None:
        try:
            checkpointer = self._checkpointer
            if checkpointer is None:
                checkpointer = self._checkpointer = self._make_checkpointer()
            if self._sends_progress:
                self._start_progress(checkpointer, message.checkpoint_id)
            if isinstance(message, Checkpoint):
                answer: FromWorker = checkpointer.create_checkpoint(
                    message.checkpoint_id, message.known, message.timeout, message.total_timeout
                )
            else:
                answer = checkpointer.restore(message)
        except LocalProtocolError as error:
            answer = _error_answer(message, str(error))
        except Exception as error:  # no memory, for example: the client must not wait for ever
            answer = _error_answer(message, f"it failed: {type_name(error)}: {error}")
        finally:
            self._stop_progress()
            self._repair.recursion_limit()
            self._repair.standard_fds()
            self._repair.builtins()
        try:
            self._writer.send(answer)
        except LocalProtocolError as error:
            self._writer.send(_error_answer(message, str(error)))

    def _make_checkpointer(self) -> "Checkpointer":
        # Not loaded before it is asked for: start-up stays lean.
        from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
        from pyrepl3_worker.checkpoint.history import CellHistory
        from pyrepl3_worker.checkpoint.process_state import ProcessState
        from pyrepl3_worker.checkpoint.time_budget import TimeBudget
        from pyrepl3_worker.checkpoint.work_directory import WorkDirectory

        budget = self._budget = TimeBudget(self._timers, self._canceller.wakeup)
        self._canceller.overdue_error = budget.overdue_error
        namespace = self._namespace
        own, confined = self._work_directory, in_force.own_directory()
        directory = None
        if own or confined:
            directory = WorkDirectory(own or confined or "", times_tell=not confined)
        return Checkpointer(
            namespace.namespace,
            namespace.hidden_names - CODE_MODULE_KEYS,
            self._max_bytes,
            history=CellHistory(namespace),
            budget=budget,
            call_on_blocking_thread=self._call_on_blocking_thread,
            process_state=ProcessState(self._start, budget, self._in_context),
            work_directory=directory,
        )


def _error_answer(message: Checkpoint | Restore, text: str) -> Error:
    text = f"{message.checkpoint_id}: {text}"
    return Error(kind="protocol", exception="RemoteProtocolError", message=text, traceback=text)
