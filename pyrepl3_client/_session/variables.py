"""Variables of the session, set and got by its program: plain data, arrays and tables of any size.

A `set` is state, and so it is on record: it takes its turn as an execution does, whose code asks the client
for the values. Inside of a host function that the running cell waits for, it belongs to that call: it
happens at once, and again whenever the call is answered from the record.
"""

import keyword
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pyrepl3_client._execution.offers import CallContext
from pyrepl3_client._execution.queue import ExecutionQueue
from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_client._execution.serving import question_served
from pyrepl3_client._session.queries import ask_worker
from pyrepl3_client._worker.handle import WorkerHandle
from pyrepl3_client._worker.transfers import RequestRefused
from pyrepl3_client.config import MAX_LIMIT, checked_bool, checked_seconds
from pyrepl3_client.errors import ExecutionCancelled, ExecutionFailed, ExecutionTimeout, TransferError
from pyrepl3_schemas.codec import encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.executor_config import as_int, shown
from pyrepl3_schemas.large_values import decode_body, encode_body
from pyrepl3_schemas.reserved_names import NAMESPACE_NAMES, SET_VALUES
from pyrepl3_schemas.transfer import Body, flatten, unflatten

SILENCE_SECONDS: Final = 60.0
"""Seconds for which a worker may take or send nothing of a transfer."""
_WORKERS_SHARE: Final = 0.8
"""Of the time-out, which the worker may take to encode a value: its error is to come in time."""
DEFAULT_MAX_BYTES: Final = 4 * 1024**3

type Submit = Callable[[str], ExecutionRecord]
"""Submits code that is no cell of the user's."""


class SessionVariables:
    """Sets and gets the variables of one session."""

    def __init__(
        self, queue: ExecutionQueue, submit: Submit, ready_worker: Callable[[], Awaitable[WorkerHandle]]
    ) -> None:
        """Work for a session.

        Args:
            queue: its executions.
            submit: submits the execution that sets something.
            ready_worker: returns the worker that takes executions.
        """
        self._queue = queue
        self._submit = submit
        self._ready_worker = ready_worker
        self._values: dict[str, bytes] = {}
        """What executions that are under way set, by their ids, as flat bodies."""
        queue.calls.serve_own(SET_VALUES, self._answer)

    async def set(self, values: dict[str, Any]) -> None:
        """Bind variables. See `Session.set`."""
        given, values = values, {}
        for name, value in given.items():
            spelled = _as_spelled(name)
            if spelled in values:
                raise ValueError(f"two of these names are one variable: {spelled!r}")
            values[spelled] = value
        for name in values:
            if keyword.iskeyword(name) or not name.isidentifier():
                raise ValueError(f"{shown(name)} cannot be a variable: it is no Python identifier")
            if name in NAMESPACE_NAMES or (name.startswith("__") and name.endswith("__")):
                raise ValueError(f"{name!r} cannot be set: the session uses that name itself")
        if not values:
            return
        try:
            data = flatten(encode_body(values))
        except LocalProtocolError as error:
            raise TransferError(f"{_names(values)} cannot be set: {error.reason}") from None
        except MemoryError:
            raise TransferError(
                f"{_names(values)} cannot be set: there is no memory here for a copy"
            ) from None
        served = question_served(self._queue)
        if served is not None:
            await self._queue.call_log.set_values(served.execution_id, served.question_id, data)
            return
        execution = self._submit(f"global {', '.join(values)}\n{SET_VALUES}()")
        self._values[execution.execution_id] = data
        try:
            await execution.wait_or_cancel(check=True)
        except (ExecutionTimeout, ExecutionCancelled):
            raise
        except ExecutionFailed as failed:
            raise TransferError(f"{_names(values)} cannot be set: {failed.error.message}") from None
        finally:
            del self._values[execution.execution_id]

    async def _answer(self, context: CallContext) -> None:
        """Serve the code that sets something."""
        data = self._values.get(context.execution_id)
        if data is not None:
            await self._queue.call_log.set_values(context.execution_id, context.call_id, data)
        elif not self._queue.call_log.has_set_values(context.execution_id, context.call_id):
            raise TransferError("there is nothing to set, or the program ended before it was on record")

    async def get(self, name: str, *, arrow: bool, timeout: float | None, max_bytes: int) -> Any:
        """Return a variable's value. See `Session.get`."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"name must be a string, not {shown(name)}")
        if timeout is not None:
            timeout = checked_seconds("timeout", timeout)
        if not 0 < as_int("max_bytes", max_bytes) <= MAX_LIMIT:
            raise ValueError(f"max_bytes must be above 0 and at most {MAX_LIMIT}, not {shown(max_bytes)}")
        checked_bool("arrow", arrow)
        name = _as_spelled(name)
        question: dict[str, object] = {"name": name}
        if arrow:
            question["arrow"] = True
        if timeout is not None:
            question["seconds"] = _WORKERS_SHARE * timeout
        try:
            asked = Body(encode_value(question))
        except LocalProtocolError as error:
            raise TransferError(f"{shown(name)} cannot be got: {error.reason}") from None
        try:
            body = await ask_worker(
                self._ready_worker,
                lambda worker: worker.requests.by_kind.request("get", asked, timeout, max_bytes),
            )
            return decode_body(body, trusted=False)
        except RequestRefused as refused:
            raise TransferError(f"{shown(name)} cannot be got: {refused}") from None
        except RemoteProtocolError as error:
            raise TransferError(f"{shown(name)} cannot be got: {error.reason}") from None


async def set_variables(worker: WorkerHandle, data: bytes) -> None:
    """Bind variables in a worker, from a map of values by name, as a flat body.

    Raises:
        TransferError: the worker cannot take them.
        WorkerDied, WorkerUnresponsive: it did not answer.
    """
    try:
        await worker.requests.by_kind.request("set", unflatten(data), SILENCE_SECONDS)
    except RequestRefused as refused:
        raise TransferError(str(refused)) from None


def _as_spelled(name: str) -> str:
    """Return a name as the compiler spells it (NFKC): code that names it finds that one alone."""
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _names(values: dict[str, Any]) -> str:
    return ", ".join(map(repr, values))
