"""Reads what executions have written, wherever it is: on its way, kept since it was cut, or in the record."""

from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._session.recorder import Recorder
from pyrepl3_schemas.messages import StreamName


class OutputReader:
    """Reads the output of a session's executions by their ids."""

    def __init__(self, queue: ExecutionQueue, recorder: Recorder) -> None:
        """Read what `queue` has and keeps, and what `recorder` has on record."""
        self._queue = queue
        self._recorder = recorder

    async def read(self, execution_id: str, start: int, stop: int | None, stream: StreamName) -> str:
        """Return a part of what an execution has written. See `Session.output`."""
        execution = self._queue.find(execution_id)
        if execution is not None:
            return await execution.read_output(start, stop, stream)
        keeper = self._queue.keeper
        kept = keeper.find(execution_id)
        if kept is not None and not kept.lost:
            return await kept.read(stream, start, stop)
        recorded = self._recorder.text_on_record(execution_id)
        if recorded is None:
            raise keeper.not_here(execution_id)
        return await recorded.read(stream, start, stop)
