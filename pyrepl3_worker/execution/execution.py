"""Who is running: executions, and the flows of control inside one.

A flow is one line of control: the execution's main one, or a task or thread that it (or another flow)
created. Its place in that tree, and the calls it has made, number `input()` and capability calls in
a way that depends on the code's structure alone and not on who finishes first.

A flow may outlive its execution: what it prints then is late output of that one, and what it asks is asked
by the one that runs.
"""

import zlib
from contextvars import ContextVar
from itertools import count
from typing import Literal

from pyrepl3_schemas.head_tail import HeadTail
from pyrepl3_schemas.messages import CancelReason, ResultMode, StreamName

type RunsOn = Literal["queued", "main", "task", "thread", "ended"]


class WorkerExecution:
    """One run of one piece of code, from the moment it is queued."""

    __slots__ = (
        "cancel_count",
        "cancel_reason",
        "captured",
        "code",
        "execution_id",
        "head_tail",
        "mode",
        "output_bytes",
        "path",
        "result_mode",
        "started",
        "started_boottime",
        "store_history",
        "timeout",
        "undrained",
        "where",
    )

    def __init__(
        self,
        execution_id: str,
        code: str,
        timeout: float | None = None,
        result_mode: ResultMode = "last_expr_or_assign",
        *,
        store_history: bool = True,
    ) -> None:
        """Describe it; `timeout` in seconds."""
        self.execution_id = execution_id
        self.code = code
        self.timeout = timeout
        self.result_mode: ResultMode = result_mode
        self.store_history = store_history
        self.where: RunsOn = "queued"
        self.mode = ""
        self.started = 0.0
        self.started_boottime = 0.0
        self.cancel_count = 0
        self.cancel_reason: CancelReason | None = None
        self.path = CallPath(self, "")
        """The main one. Gone when the execution has ended: the two would keep each other alive."""
        # Kept by the room `output`.
        self.output_bytes = 0
        """Bytes of output that it has written, those that were cut included."""
        self.head_tail: HeadTail[StreamName] | None = None
        """What its output is cut by; None while all of it goes through."""
        self.captured = False
        """Whether something was found in the capture pipes when it ended."""
        self.undrained = False
        """Whether that may still be there: its outcome says so."""

    @property
    def output_was_cut(self) -> bool:
        """Whether bytes of its output are missing. Final when it has ended."""
        return self.head_tail is not None and self.head_tail.missing > 0

    @property
    def ended(self) -> bool:
        """Whether its `result` or `error` is on the way; what it still writes is late."""
        return self.where == "ended"


class CallPath:
    """One line of control inside an execution."""

    __slots__ = ("_calls", "_children", "execution", "prefix")

    def __init__(self, execution: WorkerExecution, prefix: str) -> None:
        """`prefix` is empty for the main flow, else its place with a dot, such as `2.` or `2.1.`."""
        self.execution = execution
        self.prefix = prefix
        self._children: count[int] | None = None
        self._calls: dict[str, int] | None = None

    def child(self) -> "CallPath":
        """Give the flow of the next task or thread created here."""
        if self._children is None:
            self._children = count(1)
        return CallPath(self.execution, f"{self.prefix}{next(self._children)}.")

    def next_number(self, name: str) -> str:
        """Give the number of this flow's next call of `name`."""
        if self._calls is None:
            self._calls = {}
        number = self._calls.get(name, 0) + 1
        self._calls[name] = number
        return f"{self.prefix}{number}"

    def next_late_number(self, name: str) -> str:
        """Give the number of this flow's next call of `name` that another execution makes for it.

        Its own execution has ended. No task or thread has the place 0, so the call is in nobody's way; it has
        the mark of the ended execution there, then the number that it would have had in that. So when both
        are run again the call is known again, however the flow and the other execution took turns. Which
        execution runs when the flow calls is a matter of time: run again, one that is over may be
        asked what it was not asked before, and the program is told so.
        """
        return f"0.{zlib.crc32(self.execution.execution_id.encode())}.{self.next_number(name)}"


current_path: ContextVar[CallPath | None] = ContextVar("pyrepl3_flow", default=None)
