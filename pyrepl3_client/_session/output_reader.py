"""Reads what executions have written, wherever it is: on its way, or kept since it was cut."""

from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_schemas.messages import StreamName


class OutputReader:
    """Reads the output of a session's executions by their ids."""

    def __init__(self, queue: ExecutionQueue) -> None:
        """Read what `queue` has and keeps."""
        self._queue = queue

    async def read(self, execution_id: str, start: int, stop: int | None, stream: StreamName) -> str:
        """Return a part of what an execution has written. See `Session.output`."""
        execution = self._queue.find(execution_id)
        if execution is not None:
            return await execution.read_output(start, stop, stream)
        kept = self._queue.keeper.find(execution_id)
        if kept is None:
            raise self._queue.keeper.not_here(execution_id)
        return await kept.read(stream, start, stop)
