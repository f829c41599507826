"""Checkpoints and restores as the session meets them: always answered, whatever the objects' code does."""

from typing import TYPE_CHECKING

from pyrepl3_schemas.errors import LocalProtocolError
from pyrepl3_schemas.messages import Checkpoint, Error, FromWorker, Restore
from pyrepl3_worker.execution.canceller import Stopper
from pyrepl3_worker.interrupts.timers import AlarmClock
from pyrepl3_worker.isolation.builtins_guard import Sound
from pyrepl3_worker.namespace import OF_CODE, NamespaceManager
from pyrepl3_worker.rendering.reprs import type_name
from pyrepl3_worker.session.queries import HIDDEN
from pyrepl3_worker.session.repair import Health
from pyrepl3_worker.wire.transport import Writer

if TYPE_CHECKING:
    from pyrepl3_worker.checkpoint.checkpointer import Checkpointer


class Keeping:
    """Has a session's checkpoints taken and restored, between two executions."""

    def __init__(
        self,
        namespace: NamespaceManager,
        stopper: Stopper,
        clock: AlarmClock,
        health: Health,
        writer: Writer,
        max_bytes: int,
    ) -> None:
        """Load nothing yet. `max_bytes` is the longest frame."""
        self._namespace = namespace
        self._stopper = stopper
        self._clock = clock
        self._health = health
        self._writer = writer
        self._max_bytes = max_bytes
        self._checkpointer: Checkpointer | None = None

    def answer(self, message: Checkpoint | Restore) -> None:
        """Do what is asked, on the loop's thread, and say how it went."""
        with Sound():
            self._answer(message)

    def _answer(self, message: Checkpoint | Restore) -> None:
        try:
            checkpointer = self._checkpointer
            if checkpointer is None:
                checkpointer = self._checkpointer = self._make()
            if isinstance(message, Checkpoint):
                answer: FromWorker = checkpointer.take(message.checkpoint_id, message.known, message.timeout)
            else:
                answer = checkpointer.restore(message)
        except LocalProtocolError as error:
            answer = _complaint(message, str(error))
        except Exception as error:  # no memory, say: whoever asked must not wait for ever
            answer = _complaint(message, f"it failed: {type_name(error)}: {error}")
        finally:
            self._health.make_room()
            self._health.mend_fds()
            self._health.mend()
        try:
            self._writer.send(answer)
        except LocalProtocolError as error:
            self._writer.send(_complaint(message, str(error)))

    def _make(self) -> "Checkpointer":
        # Not loaded before it is asked for: start-up stays lean.
        from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
        from pyrepl3_worker.checkpoint.history import History
        from pyrepl3_worker.checkpoint.time_budget import Patience

        patience = Patience(self._clock, self._stopper.doorbell)
        self._stopper.overdue = patience.overdue
        namespace = self._namespace
        return Checkpointer(
            namespace.namespace,
            HIDDEN - OF_CODE,
            self._max_bytes,
            history=History(namespace),
            patience=patience,
        )


def _complaint(message: Checkpoint | Restore, text: str) -> Error:
    text = f"{message.checkpoint_id}: {text}"
    return Error(kind="protocol", exception="RemoteProtocolError", message=text, traceback=text)
