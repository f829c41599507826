"""Functions that run compiled cells, marked by `runs_user_code`: inside of them only the user's code runs."""

import os
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Final

from pyrepl3_worker.code.compiler import CO_COROUTINE, LAST_VALUE_NAME, WRAPPER_NAME, CompiledCell
from pyrepl3_worker.execution.execution import WorkerExecution, current_path
from pyrepl3_worker.execution.host import NO_VALUE
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.isolation.builtins_guard import install_user_hooks, remove_user_hooks

_set_current: Final = current_path.set


def make_runner(code: CodeType, namespace: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that runs a cell's code in the namespace, as `exec` and `eval` would.

    A module's code may be a function's: its locals are then its globals. The function can be kept with
    the cell, and calling it raises no audit event, so it takes a tenth of `eval`'s time. `exec` would
    look up `__builtins__` each time; a cell's are put back when it has ended, so they are the same ones.
    """
    return FunctionType(code, namespace)


def prepare_cell(cell: CompiledCell, namespace: dict[str, Any]) -> None:
    """Make the functions that run a cell's code, before its first run."""
    if cell.body is not None:
        cell.run_body = make_runner(cell.body, namespace)
    if cell.last is not None:
        cell.run_last = make_runner(cell.last, namespace)
    cell.prepared = True


@runs_user_code
def run_and_encode(
    cell: CompiledCell, namespace: dict[str, Any], encode: Callable[..., Any], execution: WorkerExecution
) -> Any:
    """Run code that is no coroutine; return its value, and what `encode` makes of it."""
    _set_current(execution.path)
    install_user_hooks()
    try:
        if cell.run_body is not None:
            cell.run_body()
        if cell.run_last is not None:
            value = cell.run_last()
            if cell.binds_last_value:
                namespace.pop(LAST_VALUE_NAME, None)
        elif cell.wrapped:
            value = namespace.pop(WRAPPER_NAME)()
        else:
            value = NO_VALUE
    finally:
        remove_user_hooks()
    return value, encode(execution, value)


@runs_user_code
async def await_cell(cell: CompiledCell, namespace: dict[str, Any]) -> Any:
    """Run code of which a part is a coroutine, and return its value."""
    value = None
    install_user_hooks()
    if cell.run_body is not None:
        value = cell.run_body()
        if value is not None:
            await value
    if cell.wrapped:
        return await namespace.pop(WRAPPER_NAME)()
    if cell.last is None or cell.run_last is None:
        return NO_VALUE
    value = cell.run_last()
    if cell.last.co_flags & CO_COROUTINE:
        value = await value
    if cell.binds_last_value:
        namespace.pop(LAST_VALUE_NAME, None)
    return value


@runs_user_code
def call_user_code(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that may call the user's code (a `__repr__`, a `__reduce__`)."""
    return function(*arguments)


def exit_forked_child(error: BaseException | None) -> None:
    """End a child that the code forked: it must not go on as a second worker."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        from pyrepl3_worker.rendering.exceptions import describe_exception

        os.write(2, describe_exception(error, "exception", None).traceback.encode())
        status = 1
    os._exit(status)
