"""Reads what executions have written, wherever it is: on its way, kept since it was cut, or in the record."""

from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._journal.outcomes import EndedOutcome, Outcome
from pyrepl3_client._session.recorded_text import STREAMS
from pyrepl3_client._session.recorder import Recorder
from pyrepl3_client._session.run_texts import RunOutput, text_of
from pyrepl3_client.errors import OutputNotKept
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import StreamName

_CUT = "its output was cut, and the rest is not kept: its result has the head and the tail"


class OutputReader:
    """Reads the output of a session's executions by their ids."""

    def __init__(self, queue: ExecutionQueue, recorder: Recorder) -> None:
        """Read what `queue` has and keeps, and what `recorder` has on record."""
        self._queue = queue
        self._recorder = recorder

    async def read(
        self, execution_id: str, start: int, stop: int | None, stream: StreamName, run: str | None = None
    ) -> str:
        """Return a part of what an execution has written. See `Session.output`."""
        execution = self._under_way(execution_id)
        if execution is not None and (run is None or run == self._run_of(execution)):
            return await execution.read_output(start, stop, stream)
        outcome = None if execution is not None else await self._recorder.outcome(execution_id)
        if run is not None and (outcome is None or run != outcome.run):
            return await self._recorder.read_run(execution_id, run, stream, start, stop)
        kept = self._queue.keeper.find(execution_id)
        if kept is not None and not kept.lost:
            return await kept.read(stream, start, stop)
        if outcome is not None and not outcome.written.truncated:
            text = outcome.written.stdout if stream == "stdout" else outcome.written.stderr
            return text[start:stop]
        recorded = self._recorder.text_on_record(execution_id)
        if recorded is None:
            raise self._queue.keeper.not_here(execution_id)
        return await recorded.read(stream, start, stop)

    async def runs(self, execution_id: str) -> tuple[RunOutput, ...]:
        """Return the runs of an execution. See `Session.runs`."""
        execution = self._under_way(execution_id)
        earlier = await self._recorder.runs(execution_id)
        last: RunOutput | None = None
        if execution is not None:
            run = self._run_of(execution)
            if run is not None:
                sizes = [(await text_of(execution, stream))[0] for stream in STREAMS]
                missing = execution.partial or sizes[0].missing or sizes[1].missing
                state = "ended" if execution.done else "running"
                last = RunOutput(run, state, sizes[0].characters, sizes[1].characters, missing)
        else:
            outcome = await self._recorder.outcome(execution_id)
            if outcome is not None and (outcome.run or isinstance(outcome, EndedOutcome)):
                last = await self._last_run(execution_id, outcome)
            elif outcome is None and not earlier:
                raise OutputNotKept(
                    f"nothing is on record of an execution {execution_id!r}: without a store, only one that "
                    "was started with an execution_id can be asked for when it has ended"
                )
        return (
            *(each for each in earlier if last is None or each.run != last.run),
            *((last,) if last else ()),
        )

    def _under_way(self, execution_id: str) -> ExecutionRecord | None:
        found = self._recorder.find(execution_id)
        if found is not None and not found.settled:
            return found
        return self._queue.find(execution_id)

    def _run_of(self, execution: ExecutionRecord) -> str | None:
        """Return the name of the run that goes on, None while it waits."""
        return None if execution.state is ExecutionState.QUEUED else self._recorder.run_name()

    async def _last_run(self, execution_id: str, outcome: Outcome) -> RunOutput:
        written = outcome.written
        kept = self._queue.keeper.find(execution_id)
        sizes = [len(written.stdout), len(written.stderr)]
        missing = ""
        if kept is not None and not kept.lost:
            of_kept = [kept.size(stream) for stream in STREAMS]
            sizes = [size.characters for size in of_kept]
            missing = of_kept[0].missing or of_kept[1].missing
        elif written.truncated:
            recorded = self._recorder.text_on_record(execution_id)
            found = [None if recorded is None else await recorded.size(stream) for stream in STREAMS]
            sizes = [0 if size is None else size.characters for size in found]
            missing = next(
                (_CUT if size is None else size.missing for size in found if size is None or size.missing), ""
            )
        return RunOutput(outcome.run, "ended", sizes[0], sizes[1], missing)
