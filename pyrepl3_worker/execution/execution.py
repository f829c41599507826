"""Executions, and the call paths that number the host calls inside one.

An execution has a main path, and one more for each task or thread that it, or one of those, creates. A
path's place in that tree, and the calls made on it, number `input()` and host calls in a way that depends
on the code's structure alone and not on what finishes first.

A task or thread may outlive its execution: what it prints then is late output of that execution, and its
host calls are made in the name of the execution that runs at the time.
"""

import os
import zlib
from contextvars import ContextVar
from itertools import count
from typing import Literal

import msgspec

from pyrepl3_schemas.display_budget import DisplayBudget
from pyrepl3_schemas.head_tail import HeadTail
from pyrepl3_schemas.messages import CancelReason, ResultMode, StreamName

type RunsOn = Literal["queued", "main", "task", "thread", "ended"]


class WorkerExecution(msgspec.Struct, eq=False):
    """One run of one piece of code, from the moment it is queued.

    Every run makes one, so it is a struct: its defaults are set without a line of Python each.
    """

    execution_id: str
    code: str
    timeout: float | None = None
    """Seconds that it may take."""
    result_mode: ResultMode = "last_expr_or_assign"
    store_history: bool = True
    filename: str = ""
    """The file that the code is from, if it has one."""
    first_line: int = 1
    where: RunsOn = "queued"
    mode: str = ""
    started: float = 0.0
    started_boottime: float = 0.0
    cancel_count: int = 0
    cancel_reason: CancelReason | None = None
    path: "CallPath | None" = None
    """The main path, from its start to its end: the two keep each other alive."""
    # Kept by the room `output`.
    output_bytes: int = 0
    """Bytes of output that it has written, those that were cut included."""
    head_tail: HeadTail[StreamName] | None = None
    """What its output is cut by; None while all of it goes through."""
    displays: DisplayBudget | None = None
    """What it has displayed is counted by; None while that is nothing."""
    is_assigned: bool = False
    """Whether its value is what its last statement has assigned."""
    captured: bool = False
    """Whether something was found in the capture pipes when the execution ended."""
    undrained: bool = False
    """Whether that may still be there; its `result` or `error` says so to the client."""

    @property
    def output_was_cut(self) -> bool:
        """Whether bytes of its output or displays are missing. Final when it has ended."""
        return (self.head_tail is not None and self.head_tail.missing > 0) or (
            self.displays is not None and self.displays.cut
        )

    @property
    def ended(self) -> bool:
        """Whether its `result` or `error` is on the way; what it still writes is late."""
        return self.where == "ended"


class CallPath(msgspec.Struct, eq=False):
    """The place of a task or thread in its execution's tree, which numbers the calls made there."""

    execution: WorkerExecution
    prefix: str
    """Empty for the main path, else the place with a dot, such as `2.` or `2.1.`."""
    _children: "count[int] | None" = None
    _calls: dict[str, int] | None = None

    def child(self) -> "CallPath":
        """Return the path of the next task or thread created here."""
        if self._children is None:
            self._children = count(1)
        return CallPath(self.execution, f"{self.prefix}{next(self._children)}.")

    def next_number(self, name: str) -> str:
        """Return the number of this path's next call of `name`."""
        if self._calls is None:
            self._calls = {}
        number = self._calls.get(name, 0) + 1
        self._calls[name] = number
        return f"{self.prefix}{number}"

    def next_late_number(self, name: str) -> str:
        """Return the number of this path's next call of `name` that is made in another execution's name.

        Its own execution has ended. No task or thread has the place 0, so the number collides with no other;
        a checksum of the ended execution's id follows, then the number that the call would have had in that
        execution. So when both are run again the call has the same id, however the two took turns. Which
        execution runs when the call is made is a matter of timing: in a replay, one that has ended may make
        a call that is not in its record, and the client reports that.
        """
        return f"0.{zlib.crc32(self.execution.execution_id.encode())}.{self.next_number(name)}"


current_path: ContextVar[CallPath | None] = ContextVar("pyrepl3_flow", default=None)


def exit_forked_child(error: BaseException | None) -> None:
    """End a child that the code forked: it must not go on as a second worker."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        from pyrepl3_worker.rendering.exceptions import describe_exception

        os.write(2, describe_exception(error, "exception", None).traceback.encode())
        status = 1
    os._exit(status)
