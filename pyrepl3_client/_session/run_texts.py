"""What each run of an execution has written: recorded while it runs, and kept when a death interrupts it.

An execution may run more than once: its worker dies, or its program, and it is run again. Each run has a
name, which is known before it writes anything and is never used again: the number of the session's opening,
and the number of the worker in that, such as `2.1`. So who reads by position never takes the text of one run
for the end of another's.

RunOutput      how much there is of one run
RunTexts       the runs of a session that is recorded in memory
RunRecorder    those of one that is recorded in a store
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal

import msgspec

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord, SentOutput
from pyrepl3_client._journal.protocol import TEXT_PART_CHARACTERS, Journal, TextPart, TextSize
from pyrepl3_client._session.recorded_text import STREAMS, RecordedText
from pyrepl3_client._telemetry.announcer import Telemetry
from pyrepl3_client.errors import OutputNotKept, StoreError
from pyrepl3_schemas.executor_config import shown
from pyrepl3_schemas.messages import StreamName

FLUSH_SECONDS: Final = 0.1
"""How much later than it came the text of a running execution is on record, about."""
_MEMORY_CHARACTERS: Final = 16 * 1024 * 1024
"""Of interrupted runs, in a session without a store; the oldest go."""
_NAME: Final = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")
_NO_END: Final = "its end is not on record"
CUT: Final = "it was cut, and max_spill_bytes=0 keeps none of the rest"

type RunState = Literal["running", "interrupted", "ended"]


class RunOutput(msgspec.Struct, frozen=True):
    """How much can be read of what one run of an execution has written. See `Session.runs`."""

    run: str
    """Its name, for `Session.output`: the session's opening and the worker in that, as `2.1`."""
    state: RunState
    """`running`; `interrupted`: its worker or its program ended first; `ended`: the outcome is this run's."""
    stdout: int
    """Characters that can be read, from the first on."""
    stderr: int
    missing: str = ""
    """Why what followed these cannot be read; empty if they are all that it has written so far."""


def checked_run(run: str | None) -> str | None:
    """Return the name of a run as it is.

    Raises:
        ValueError, TypeError: it is none.
    """
    if run is not None and not isinstance(run, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"run must be the name of a run, as session.runs() gives it, not {shown(run)}")
    if run is not None and not _NAME.fullmatch(run):
        raise ValueError(
            f"run must be the name of a run, such as '2.1', as session.runs() gives it, not {shown(run)}"
        )
    return run


async def text_of(
    sent: ExecutionRecord | SentOutput, stream: StreamName
) -> tuple[TextSize, Callable[[int, int], Awaitable[str]]]:
    """Return how much there is of what was written to a stream, and what reads a part of it."""
    if sent.kept is not None:
        await sent.kept.settle()
        return sent.kept.size(stream), partial(sent.kept.read, stream)
    if isinstance(sent, ExecutionRecord):
        text = "".join(sent.pieces(stream))
    else:
        text = "".join((sent.stdout if stream == "stdout" else sent.stderr) or ())

    async def read(start: int, stop: int) -> str:
        return text[start:stop]

    # What is cut and not kept has a marker in it, so nothing behind its head has a position.
    return (TextSize(0, CUT) if sent.truncated else TextSize(len(text))), read


class RunTexts:
    """The interrupted runs of a session's executions, in this process's memory."""

    def __init__(self) -> None:
        """Start without runs."""
        self._texts: dict[tuple[str, str], dict[StreamName, str]] = {}
        self._missing: dict[tuple[str, str], str] = {}
        self._size = 0

    def keep(self, execution: ExecutionRecord, run: str) -> None:
        """Keep what an interrupted run has written; of one whose output was cut only that it was."""
        sent, key = execution.interrupted_output, (execution.execution_id, run)
        if sent is None or key in self._texts:
            return
        if sent.truncated or sent.kept is not None:
            self._texts[key] = {"stdout": "", "stderr": ""}
            self._missing[key] = "it was cut, and without a store cut output is kept of the last run alone"
            return
        self._texts[key] = {"stdout": "".join(sent.stdout or ()), "stderr": "".join(sent.stderr or ())}
        self._size += sum(map(len, self._texts[key].values()))
        while self._size > _MEMORY_CHARACTERS:
            oldest = next(iter(self._texts))
            self._size -= sum(map(len, self._texts.pop(oldest).values()))
            self._missing.pop(oldest, None)

    def of(self, execution_id: str) -> list[RunOutput]:
        """Return the interrupted runs of an execution, in their order."""
        return [
            RunOutput(
                run,
                "interrupted",
                len(texts["stdout"]),
                len(texts["stderr"]),
                self._missing.get((key, run), ""),
            )
            for (key, run), texts in self._texts.items()
            if key == execution_id
        ]

    def read(self, execution_id: str, run: str, stream: StreamName, start: int, stop: int | None) -> str:
        """Return a part of what a run wrote.

        Raises:
            OutputNotKept: it is not here.
        """
        texts = self._texts.get((execution_id, run))
        missing = self._missing.get((execution_id, run), "")
        if texts is None or missing:
            raise not_kept(execution_id, run, missing or "no such run is, or it has made room for later ones")
        return texts[stream][start:stop]


def not_kept(execution_id: str, run: str, why: str) -> OutputNotKept:
    """Return the error that says why nothing can be read of a run."""
    return OutputNotKept(f"the output of run {run} of {execution_id!r} is not kept: {why}")


class RunRecorder:
    """Records in a store what executions write while they run."""

    def __init__(
        self,
        journal: Journal,
        queue: ExecutionQueue,
        task_owner: TaskOwner,
        telemetry: Telemetry,
        max_bytes: int,
    ) -> None:
        """Record in `journal`.

        Args:
            journal: the session's record.
            queue: its executions.
            task_owner: owns the tasks that write.
            telemetry: knows the present worker, and is told of trouble.
            max_bytes: of all texts of the session; 0 records none.
        """
        self._journal = journal
        self._queue = queue
        self._task_owner = task_owner
        self._telemetry = telemetry
        self._max_bytes = max_bytes if journal.takes_running_text else 0
        self._in_memory = None if journal.takes_running_text else RunTexts()
        """Keeps what a worker's death interrupts, where the store does not."""
        self.on_text = self._note if self._max_bytes else None
        """What an execution is to call when it has taken text; None for nothing."""
        self._timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self._written_of = ("", "")
        """The execution and the run of which something was written last."""
        self._written: dict[StreamName, int] = {}
        """Characters of that."""
        self._told = False

    def run_name(self) -> str:
        """Return the name of runs in the present worker."""
        return f"{self._journal.opening}.{self._telemetry.incarnation}"

    def _note(self) -> None:
        if self._timer is None:
            self._timer = self._task_owner.loop.call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        execution = self._queue.first
        if execution is None or execution.is_replay or not execution.number or execution.done:
            return
        if execution.kept is not None or self._lock.locked():
            self._note()  # what is kept comes past `on_text`
        if not self._lock.locked():
            run = self.run_name()
            self._task_owner.start(self._write_running(execution, run), "text of a running execution")

    async def write_now(self, execution: ExecutionRecord) -> None:
        """Record what an execution has written by now: the session is closed, and goes on another time."""
        if self._max_bytes and self._queue.first is execution:
            await self._write_running(execution, self.run_name())

    async def _write_running(self, execution: ExecutionRecord, run: str) -> None:
        async with self._lock:
            try:
                await self._write(execution.execution_id, run, execution, None)
            except OutputNotKept:
                return  # it has made room for other output, or is being run again
            except StoreError as error:
                self._tell(execution.execution_id, error)

    def _tell(self, execution_id: str, error: StoreError) -> None:
        if not self._told:
            self._told = True
            what = "what an execution writes cannot be recorded while it runs"
            self._telemetry.store_trouble(what, error, execution_id=execution_id)

    async def _write(
        self, execution_id: str, run: str, sent: ExecutionRecord | SentOutput, end: str | None
    ) -> None:
        if self._written_of != (execution_id, run):
            self._written_of, self._written = (execution_id, run), {}
        for stream in STREAMS:
            size, read = await text_of(sent, stream)
            done = self._written.get(stream, 0)
            if end is None and (size.missing or (size.characters == done and stream in self._written)):
                continue
            n = done // TEXT_PART_CHARACTERS
            is_last = False
            while not is_last:
                start = n * TEXT_PART_CHARACTERS
                stop = max(min(start + TEXT_PART_CHARACTERS, size.characters), start)
                is_last = stop < start + TEXT_PART_CHARACTERS
                data = (await read(start, stop)).encode("utf-8", "backslashreplace")
                part = TextPart(data, (size.missing or end) if is_last else None)
                n += 1
                key = f"{execution_id}:{run}"
                if not await self._journal.put_text(key, stream, n, part, self._max_bytes):
                    return
                self._written[stream] = stop
                await asyncio.sleep(0)

    def keep(self, execution: ExecutionRecord) -> None:
        """Record to its end what an execution has written in the present worker, which has died."""
        sent = execution.interrupted_output
        if self._in_memory is not None:
            if not execution.is_replay:
                self._in_memory.keep(execution, self.run_name())
        elif self._max_bytes and sent is not None and execution.number and not execution.is_replay:
            self._task_owner.start(
                self._write_interrupted(execution.execution_id, self.run_name(), sent), "text of a run"
            )

    async def _write_interrupted(self, execution_id: str, run: str, sent: SentOutput) -> None:
        async with self._lock:
            try:
                await self._write(execution_id, run, sent, "")
            except OutputNotKept:
                return  # it has made room; what is on record says that its end is not
            except StoreError as error:
                self._tell(execution_id, error)

    def ended(self, execution_id: str, run: str) -> None:
        """Drop what was recorded while a run went on whose outcome, with all of it, is on record now."""
        if self._lock.locked() or self._written_of == (execution_id, run):
            self._task_owner.start(self._drop(execution_id, run), "text of a run that has ended")

    async def _drop(self, execution_id: str, run: str) -> None:
        async with self._lock:
            if self._written_of != (execution_id, run):
                return
            self._written_of = ("", "")
            try:
                await self._journal.drop_text(f"{execution_id}:{run}")
            except StoreError:
                return  # it takes space, and is not shown: the outcome names the same run

    async def of(self, execution_id: str) -> list[RunOutput]:
        """Return the runs of an execution that are on record, in their order."""
        if self._in_memory is not None:
            return self._in_memory.of(execution_id)
        found: list[RunOutput] = []
        for key in await self._journal.text_keys(f"{execution_id}:"):
            sizes = [await self._journal.text_size(key, stream) for stream in STREAMS]
            # The program may have ended between the first texts of both.
            out, err = (TextSize(0, _NO_END) if size is None else size for size in sizes)
            missing = out.missing or err.missing
            found.append(
                RunOutput(key.partition(":")[2], "interrupted", out.characters, err.characters, missing)
            )
        return sorted(found, key=lambda run: tuple(map(int, run.run.split("."))))

    async def read(
        self, execution_id: str, run: str, stream: StreamName, start: int, stop: int | None
    ) -> str:
        """Return a part of what a run wrote.

        Raises:
            OutputNotKept: it is not on record.
            StoreError: the record cannot be read.
        """
        if self._in_memory is not None:
            return self._in_memory.read(execution_id, run, stream, start, stop)
        key = f"{execution_id}:{run}"
        if await self._journal.text_size(key, stream) is None:
            if stop == 0 and key in await self._journal.text_keys(f"{execution_id}:"):
                return ""
            why = f"nothing of its {stream} is on record; session.runs() names the runs of which something is"
            raise not_kept(execution_id, run, why)
        whose = f"run {run} of {execution_id!r}"
        return await RecordedText(self._journal, key, whose).read(stream, start, stop)
