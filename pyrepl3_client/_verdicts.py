"""Last messages of executions, as the parent sees them: which count for good, and which it makes itself."""

from pyrepl3_client._execution import Execution
from pyrepl3_schemas.messages import CancelReason, Error, Result


def is_final(message: Result | Error, seconds: float | None) -> bool:
    """Say whether an execution is not to be run again for its effect.

    It was stopped, and nobody knows how far it came; or it took longer than its deadline of `seconds`, so
    that it was told to stop, whatever it made of that.
    """
    if seconds is not None and message.duration >= seconds:
        return True
    return isinstance(message, Error) and message.kind in ("cancelled", "timeout")


def cancelled_error(execution_id: str, reason: CancelReason, what: str) -> Error:
    """Give the outcome of an execution that was stopped without its worker's word for it."""
    text = f"execution {execution_id!r} {what}"
    return Error(
        kind="timeout" if reason == "timeout" else "cancelled",
        exception="CancellationError",
        message=text,
        traceback=f"CancellationError: {text}",
        execution_id=execution_id,
    )


def unbegun(execution: Execution, reason: CancelReason) -> Error:
    """Give the outcome of an execution that was cancelled before it began."""
    again = "" if execution.attempts == 1 else " again: its worker had died"
    return cancelled_error(execution.execution_id, reason, f"was cancelled before it began{again}")
