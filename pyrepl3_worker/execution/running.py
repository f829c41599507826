"""Runs a compiled cell: its code, and the events of its syntax before and after it, if that has any."""

import sys
from collections.abc import Callable, Coroutine
from types import CodeType, FunctionType
from typing import Any, Final

from pyrepl3_worker.code.compiler import CO_COROUTINE, LAST_VALUE_NAME, WRAPPER_NAME, CompiledCell
from pyrepl3_worker.code.repl_hooks import DISPLAYHOOK
from pyrepl3_worker.execution.execution import WorkerExecution, current_path
from pyrepl3_worker.execution.host import NO_VALUE, CellSyntax
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.isolation.builtins_guard import install_user_hooks, remove_user_hooks

_set_current_path: Final = current_path.set
runner_globals: Final = globals()
"""Where warnings are remembered whose `stacklevel` leads past the outermost frame of a cell."""


def _make_runner(code: CodeType, namespace: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that runs a cell's code in the namespace, as `exec` and `eval` would.

    A module's code may be a function's: its locals are then its globals. The function can be kept with
    the cell, and calling it raises no audit event, so it takes a tenth of `eval`'s time. `exec` would
    look up `__builtins__` each time; a cell's are put back when it has ended, so they are the same ones.
    """
    return FunctionType(code, namespace)


def prepare_cell(cell: CompiledCell, namespace: dict[str, Any]) -> None:
    """Make the functions that run a cell's code, before its first run."""
    if cell.body is not None:
        cell.run_body = _make_runner(cell.body, namespace)
    if cell.last is not None:
        cell.run_last = _make_runner(cell.last, namespace)
    cell.prepared = True


@runs_user_code
def run_and_encode(
    cell: CompiledCell, namespace: dict[str, Any], encode: Callable[..., Any], execution: WorkerExecution
) -> Any:
    """Run code that is no coroutine; return its value, and what `encode` makes of it."""
    _set_current_path(execution.path)
    install_user_hooks()
    try:
        if cell.run_body is not None:
            cell.run_body()
        if cell.run_last is not None:
            value = cell.run_last()
            if cell.binds_last_value:
                namespace.pop(LAST_VALUE_NAME, None)
            if sys.displayhook is not DISPLAYHOOK and not cell.is_assigned:
                sys.displayhook(value)
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
    if sys.displayhook is not DISPLAYHOOK and not cell.is_assigned:
        sys.displayhook(value)
    return value


@runs_user_code
def run_between_events(
    syntax: CellSyntax, execution: WorkerExecution, run: Callable[..., Any], *arguments: Any
) -> Any:
    """Return what `run` returns, a value and its encoded form."""
    _set_current_path(execution.path)
    try:
        syntax.before_cell(execution)
        value, encoded = run(*arguments)
    except BaseException as error:
        syntax.after_cell(execution, None, error)
        raise
    syntax.after_cell(execution, None if value is NO_VALUE else value, None)
    return value, encoded


@runs_user_code
async def await_between_events(
    syntax: CellSyntax, execution: WorkerExecution, cell_code: Coroutine[Any, Any, Any]
) -> Any:
    """Return what the coroutine of a cell returns."""
    try:
        syntax.before_cell(execution)
        value = await cell_code
    except BaseException as error:
        cell_code.close()
        syntax.after_cell(execution, None, error)
        raise
    syntax.after_cell(execution, None if value is NO_VALUE else value, None)
    return value
