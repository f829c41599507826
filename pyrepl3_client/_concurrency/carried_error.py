"""Errors of foreign functions in a form that a future can hold and a task can raise without harm.

A SystemExit or KeyboardInterrupt that a task raises ends its event loop, a CancelledError passes for the end
of the wait, a StopIteration or GeneratorExit for that of the coroutine. For the caller of a foreign function
each of them is one more way in which that function has failed.
"""


class CarriedError(Exception):
    """Stands for what a function raised that is no `Exception`; its class has the name of what was raised."""


def carried(raised: BaseException, name: str) -> Exception:
    """Return what stands for an exception: itself, if it does no harm.

    Args:
        raised: what a function has raised.
        name: the function's name, for the text of the error.
    """
    if isinstance(raised, StopIteration):
        error: Exception = RuntimeError(f"{name} raised StopIteration")
    elif isinstance(raised, Exception):
        return raised
    else:
        kind = type(raised)
        made: type[CarriedError] = type(kind.__name__, (CarriedError,), {"__module__": kind.__module__})
        error = made(_text(raised))
    error.__cause__ = raised
    return error


def _text(raised: BaseException) -> str:
    try:
        return str(raised)
    except BaseException:  # noqa: BLE001 - a broken __str__ is not worth losing the error for
        return f"<{type(raised).__name__} whose text cannot be had>"
