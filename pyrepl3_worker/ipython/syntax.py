"""IPythonSyntax: what a session needs of IPython: cells as Python, events, texts of values."""

import ast
import os
import re
from collections.abc import Callable
from typing import Any, Final, cast

from pyrepl3_worker.code import own_frames
from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.ipython import shell as shell_module
from pyrepl3_worker.ipython.commands import Write
from pyrepl3_worker.ipython.shell import SHELL_NAMES, SessionShell, UsageError
from pyrepl3_worker.ipython.timing import put_awaits_into_cell
from pyrepl3_worker.isolation.builtins_guard import provide
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.rendering.exceptions import show_without_traceback

_MACHINERY: Final = (
    "alias.py", "async_helpers.py", "compilerop.py", "events.py", "extensions.py", "hooks.py",
    "interactiveshell.py", "magic.py", "magic_arguments.py", "magics" + os.sep, "macro.py", "prefilter.py",
)  # fmt: skip
"""Files of `IPython.core` whose frames are between the user's lines and say nothing about them."""
_WAITS: Final = re.compile(
    r"""get_ipython\(\)\.(?:system|getoutput)\("""
    r"""|\.run_cell_magic\('(?:bash|sh|script|perl|ruby|python|python3|pypy|sx|system)',"""
    r"""|\.run_line_magic\('(?:pip|conda|mamba|micromamba|uv|sx|system)',"""
)
"""What the Python of a cell holds that runs other programs."""
_EVENTS_BEFORE: Final = ("pre_execute", "pre_run_cell")
_EVENTS_AFTER: Final = ("post_execute", "post_run_cell")


class IPythonSyntax:
    """IPython's part in running a session's cells."""

    def __init__(self, namespace: NamespaceManager, display: Callable[..., Any], write_error: Write) -> None:
        """Make the shell and provide its names; see `SessionShell`."""
        self.shell: Any = SessionShell(namespace, display, write_error)
        self._namespace = namespace
        namespace.hide(SHELL_NAMES)
        provide("get_ipython", shell_module.get_ipython)
        provide("display", shell_module.ipython_display)
        show_without_traceback(UsageError)
        folder = os.path.dirname(shell_module.__dict__["_interactiveshell"].__file__)
        own_frames.hide(*(os.path.join(folder, name) for name in _MACHINERY))

    # --- compiling -------------------------------------------------------------------------------------

    def to_python(self, source: str) -> str:
        """Return a cell as Python.

        Raises:
            SyntaxError: it can't be one.
        """
        return put_awaits_into_cell(self.shell.transform_cell(source), self.shell.transform_cell)

    def blocks(self, python: str) -> bool:
        """Return whether a cell, as Python, waits for other processes."""
        return _WAITS.search(python) is not None

    def completeness(self, source: str) -> tuple[str, str]:
        """Return whether a cell is complete, and the blanks of its next line."""
        status, indent = self.shell.input_transformer_manager.check_complete(source)
        return status, " " * (indent or 0)

    def magic_names(self) -> tuple[list[str], list[str]]:
        """Return the names of line magics and of cell magics, without their signs."""
        magics = self.shell.magics_manager.magics
        return list(magics["line"]), list(magics["cell"])

    @property
    def changes_trees(self) -> bool:
        """Whether the code has registered what changes trees (`%%code_wrap`), or wants all values shown."""
        return bool(self.shell.ast_transformers) or self.shell.ast_node_interactivity == "all"

    def change_tree(self, tree: ast.Module) -> ast.Module:
        """Return a syntax tree as the code's registered transformers leave it."""
        changed = cast("ast.Module", self.shell.transform_ast(tree))
        if self.shell.ast_node_interactivity == "all":
            for statement in changed.body[:-1]:
                if isinstance(statement, ast.Expr):
                    statement.value = ast.copy_location(_display_value_of(statement.value), statement.value)
            ast.fix_missing_locations(changed)
        return changed

    # --- around a cell -----------------------------------------------------------------------------------

    def before_cell(self, execution: WorkerExecution) -> None:
        """Tell IPython's listeners that a cell begins."""
        shell = self.shell
        shell.execution_count = len(self._namespace.inputs)
        callbacks = shell.events.callbacks
        if any(map(callbacks.get, _EVENTS_BEFORE)):
            shell.events.trigger("pre_execute")
            shell.events.trigger("pre_run_cell", self._info(execution))

    def after_cell(self, execution: WorkerExecution, value: Any, error: BaseException | None) -> None:
        """Tell IPython's listeners how a cell has ended."""
        shell = self.shell
        shell.end_cell_timing()
        shell.last_execution_succeeded = error is None
        callbacks = shell.events.callbacks
        if any(map(callbacks.get, _EVENTS_AFTER)):
            result = shell_module.make_result(self._info(execution), value, error, shell.execution_count - 1)
            shell.last_execution_result = result
            shell.events.trigger("post_execute")
            shell.events.trigger("post_run_cell", result)

    def _info(self, execution: WorkerExecution) -> Any:
        return shell_module.make_info(execution.code, execution.execution_id, execution.store_history)

    # --- values ------------------------------------------------------------------------------------------

    def text_of(self, value: object) -> str | None:
        """Return the text by which IPython shows a value; None when it has none."""
        text = self.shell.display_formatter.formatters["text/plain"](value)
        return text if isinstance(text, str) else None


def _display_value_of(value: ast.expr) -> ast.expr:
    shell = ast.Call(ast.Name("get_ipython", ast.Load()), [], [])
    return ast.Call(ast.Attribute(shell, "displayhook", ast.Load()), [value], [])
