"""Runs compiled cells. These functions are gates: inside of them, the code is at work."""

import os
from collections.abc import Callable
from typing import Any, Final

from pyrepl3_worker.cancellation import gate
from pyrepl3_worker.compiler import CO_COROUTINE, LAST, WRAPPER, Cell
from pyrepl3_worker.flow import Execution, current
from pyrepl3_worker.ground import recover, resume
from pyrepl3_worker.host import NO_VALUE

# The code may delete the builtins while its cell is half run.
_exec: Final = exec
_eval: Final = eval


@gate
def run_cell(cell: Cell, namespace: dict[str, Any]) -> Any:
    """Run code that is no coroutine; give its value."""
    if cell.body is not None:
        _exec(cell.body, namespace)
    if cell.wrapped:
        return namespace.pop(WRAPPER)()
    if cell.last is None:
        return NO_VALUE
    value = _eval(cell.last, namespace)
    if cell.pops_last:
        namespace.pop(LAST, None)
    return value


@gate
def run_and_show(
    cell: Cell, namespace: dict[str, Any], show: Callable[..., Any], execution: Execution
) -> Any:
    """Run code that is no coroutine; give its value, and what the host makes of it."""
    current.set(execution.flow)
    resume()
    try:
        value = run_cell(cell, namespace)
    finally:
        recover()
    return value, show(execution, value)


@gate
async def await_cell(cell: Cell, namespace: dict[str, Any]) -> Any:
    """Run code of which a part is a coroutine; give its value."""
    value = None
    resume()
    if cell.body is not None:
        value = _eval(cell.body, namespace)
        if value is not None:
            await value
    if cell.wrapped:
        return await namespace.pop(WRAPPER)()
    if cell.last is None:
        return NO_VALUE
    value = _eval(cell.last, namespace)
    if cell.last.co_flags & CO_COROUTINE:
        value = await value
    if cell.pops_last:
        namespace.pop(LAST, None)
    return value


@gate
def call_gated(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run what runs code of the user's in passing."""
    return function(*arguments)


def leave_forked_child(error: BaseException | None) -> None:
    """End a child that the code forked: it must not go on as a second worker."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        from pyrepl3_worker.failures import describe

        os.write(2, describe(error, "exception", None).traceback.encode())
        status = 1
    os._exit(status)
