"""What can be asked of a session's worker, at any time."""

import secrets
from collections.abc import Callable

from pyrepl3_client._checkpoints import Checkpoints
from pyrepl3_client._incarnation import Incarnation
from pyrepl3_schemas.messages import (
    Checkpointed,
    Complete,
    Completions,
    GetStats,
    Inspect,
    Inspection,
    Metrics,
    Ping,
    Pong,
    Restored,
    Stats,
    Variable,
)


class Questions:
    """The part of a session that asks and runs nothing."""

    def __init__(self, ready: Callable[[], Incarnation]) -> None:
        """Ask `ready()`, the worker that is there now; it raises when there is none."""
        self._ready = ready
        self._checkpoints = Checkpoints()

    async def ping(self, timeout: float = 5.0) -> Pong:
        """Ask for a sign of life: resident bytes, CPU seconds, queue, what runs. Answered while code runs.

        Raises:
            WorkerUnresponsive: no answer within `timeout` seconds; a TimeoutError too. So do the others.
        """
        requests = self._ready().requests
        number = requests.number()
        return await requests.ask(Ping(nonce=number), Pong, str(number), timeout, urgent=True)

    async def stats(self, timeout: float = 10.0) -> Metrics:
        """Ask for the metrics of the session's executions. Answered while code runs."""
        requests = self._ready().requests
        key = str(requests.number())
        stats = await requests.ask(GetStats(request_id=key), Stats, key, timeout, urgent=True)
        return stats.metrics

    async def complete(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Completions:
        """Ask what could stand at `cursor`, in characters (the end by default). Answered while code runs."""
        requests = self._ready().requests
        key = str(requests.number())
        message = Complete(code=code, cursor=len(code) if cursor is None else cursor, request_id=key)
        return await requests.ask(message, Completions, key, timeout, urgent=True)

    async def inspect(self, code: str, cursor: int | None = None, timeout: float = 10.0) -> Inspection:
        """Ask about the name at `cursor`, in characters (the end by default). Answered while code runs."""
        requests = self._ready().requests
        key = str(requests.number())
        message = Inspect(code=code, cursor=len(code) if cursor is None else cursor, request_id=key)
        return await requests.ask(message, Inspection, key, timeout, urgent=True)

    async def variables(self, timeout: float = 10.0) -> dict[str, Variable]:
        """Ask for the namespace's names, their types and short reprs. Answered while code runs."""
        inspection = await self.inspect("", 0, timeout)
        return {variable.name: variable for variable in inspection.variables}

    # --- checkpoints ---------------------------------------------------------------------------------

    async def checkpoint(
        self, checkpoint_id: str | None = None, timeout: float | None = None
    ) -> Checkpointed:
        """Save the namespace, under a name, in this process's memory.

        It waits for what was submitted before. What could not be saved is in `unsaved`, by name and reason.

        Raises:
            WorkerUnresponsive: the worker took longer than `timeout` seconds for it, or for a part of it.
        """
        requests = self._ready().requests
        if checkpoint_id is None:
            checkpoint_id = f"{secrets.token_hex(4)}-checkpoint-{requests.number()}"
        checked_id("checkpoint_id", checkpoint_id)
        while True:
            # One that is longer than a frame comes in parts; the last one has the data.
            request = self._checkpoints.request(checkpoint_id)
            part = await requests.ask(request, Checkpointed, checkpoint_id, timeout, urgent=False)
            self._checkpoints.keep(part)
            if part.data:
                return part

    async def restore(self, checkpoint_id: str, timeout: float | None = None) -> Restored:
        """Make the namespace what it was at a checkpoint of this session; `restart` does not lose them.

        It waits for what was submitted before. What could not be restored is in `unsaved`.

        Raises:
            ValueError: this session has no checkpoint of that name.
            WorkerUnresponsive: the worker took longer than `timeout` seconds for it, or for a part of it.
            ProtocolError: the worker cannot read it.
        """
        incarnation = self._ready()
        requests = incarnation.requests
        restored = Restored(checkpoint_id=checkpoint_id)
        for request in self._checkpoints.restoring(checkpoint_id, incarnation.connection.max_frame_bytes):
            restored = await requests.ask(request, Restored, checkpoint_id, timeout, urgent=False)
        return restored


def checked_id(what: str, value: str) -> str:
    """Give an id as it is.

    Raises:
        ValueError: it is empty or holds a colon, which separates ids in the keys of calls and inputs.
    """
    if not isinstance(value, str) or not value or ":" in value:  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise ValueError(f"{what} must be a string that is not empty and has no colon, not {value!r}")
    return value
