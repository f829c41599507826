"""Displays on their way to the client: whose they are, and whether they fit.

A display belongs to the execution whose task or thread has displayed it, as output does. One that comes when
that has ended is late.
"""

import os
from collections.abc import Callable
from typing import Final

from pyrepl3_schemas.display_budget import PLAIN_TEXT, DisplayBudget
from pyrepl3_schemas.messages import Display
from pyrepl3_worker.execution.execution import WorkerExecution, current_path
from pyrepl3_worker.output.collector import OutputCollector

_ENVELOPE_BYTES: Final = 512
"""Room in a frame for a message's other fields, but for its ids."""
_OVERHEAD_OF_ENTRY: Final = 10
_NUMBERED: Final = "display()"
"""What display ids are numbered by. No host function can have that name."""


class DisplaySender:
    """Attributes displays to executions, keeps their bound, and sends them. For any thread."""

    def __init__(
        self,
        output: OutputCollector,
        send: Callable[[Display], None],
        max_display_bytes: int | None,
        max_frame_bytes: int,
        *,
        sends_late: bool,
    ) -> None:
        """Send behind what `output` has collected.

        Args:
            output: knows the running execution.
            send: sends a message, after the output that came before it.
            max_display_bytes: bytes that one execution may show; None means no limit.
            max_frame_bytes: bytes of the longest message.
            sends_late: whether the client knows late displays and those that clear.
        """
        self._output = output
        self._send = send
        self._max_display_bytes = max_display_bytes
        self._max_frame_bytes = max_frame_bytes
        self._sends_late = sends_late

    def _owner(self) -> WorkerExecution | None:
        path = current_path.get()
        if path is None or (path.execution.ended and not self._sends_late):
            return self._output.running
        return path.execution

    def _budget(self, owner: WorkerExecution | None) -> DisplayBudget:
        if owner is None:
            return DisplayBudget(self._max_display_bytes)
        if owner.displays is None:
            owner.displays = DisplayBudget(self._max_display_bytes)
        return owner.displays

    def show(
        self,
        data: dict[str, str],
        metadata: dict[str, str],
        display_id: str | None = None,
        *,
        update: bool = False,
    ) -> None:
        """Send a MIME bundle as a display of the execution that the caller belongs to.

        Args:
            data: representations by MIME type.
            metadata: data about those, as JSON.
            display_id: a name under which it can be replaced.
            update: whether to replace what is shown under that.
        """
        if self._output.forked:
            # What a forked child sends is not read; its output goes where it was before the fork.
            self._output.write("stdout", data.get(PLAIN_TEXT, "") + "\n")
            return
        owner = self._owner()
        execution_id, late = (None, False) if owner is None else (owner.execution_id, owner.ended)
        message = Display(data, execution_id, metadata, display_id, update, late)
        ids = 4 * (len(execution_id or "") + len(display_id or ""))
        room = (
            self._max_frame_bytes - _ENVELOPE_BYTES - ids - _OVERHEAD_OF_ENTRY * (len(data) + len(metadata))
        )
        admitted = self._budget(owner).admit(message, room)
        if admitted is not None:
            self._send(admitted)

    def clear(self, *, wait: bool) -> None:
        """Take away what the execution has shown: now, or when it shows something else."""
        owner = self._owner()
        if self._output.forked or not self._sends_late:
            return
        self._budget(owner).clear(wait=wait)
        execution_id, late = (None, False) if owner is None else (owner.execution_id, owner.ended)
        self._send(Display({}, execution_id, late=late, clear="wait" if wait else "now"))

    def new_id(self) -> str:
        """Return a new display id, the same one when the same code runs again."""
        path = current_path.get()
        if path is None:
            return os.urandom(16).hex()
        return f"{path.execution.execution_id}:display:{path.next_number(_NUMBERED)}"

    def fit_value(
        self, execution: WorkerExecution, data: dict[str, str], metadata: dict[str, str], room: int
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return what fits of the bundle of an execution's value, and of its metadata.

        Args:
            execution: the execution.
            data: representations by MIME type.
            metadata: data about those.
            room: bytes that are left in the frame of its result.
        """
        room -= _OVERHEAD_OF_ENTRY * (len(data) + len(metadata))
        return self._budget(execution).admit_value(data, metadata, room)
