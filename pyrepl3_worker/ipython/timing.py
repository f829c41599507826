"""`%time` and `%%time` of code that awaits: such code has to stand in the cell itself, whose loop runs it.

IPython's own magic compiles the code as a function's, where `await` is an error.
"""

import ast
import os
from collections.abc import Callable
from inspect import CO_COROUTINE
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

_LINE: Final = "run_line_magic"
_CELL: Final = "run_cell_magic"
_PLACES: Final = (f"{_LINE}('time',", f"{_CELL}('time',")
_ARGUMENTS: Final = {_LINE: 2, _CELL: 3}


class Timing:
    """Measures the time of a block, and prints it as `%time` does."""

    def __init__(self, format_time: Callable[[float], str]) -> None:
        """Begin to measure; `format_time` is IPython's."""
        self._format = format_time
        self._began, self._cpu = perf_counter(), os.times()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Print the times."""
        wall, now, before = perf_counter() - self._began, os.times(), self._cpu
        user, system = now.user - before.user, now.system - before.system
        show = self._format
        print(f"CPU times: user {show(user)}, sys: {show(system)}, total: {show(user + system)}")
        print(f"Wall time: {show(wall)}")

    def end(self, value: object) -> object:
        """Print the times; return the value of what was measured."""
        self.__exit__(None, None, None)
        return value


def put_awaits_into_cell(python: str, transform: Callable[[str], str]) -> str:
    """Return a cell in which code that `%time` or `%%time` measures, and that awaits, is the cell's own.

    Args:
        python: the cell as Python, its magics as calls.
        transform: makes Python of a magic's code.
    """
    if "await" not in python or not any(place in python for place in _PLACES):
        return python
    try:
        tree = ast.parse(python)
    except SyntaxError:
        return python
    lines = python.encode().split(b"\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr | ast.Assign):
            continue
        match _timed_code(node.value):
            case "run_cell_magic", code if len(tree.body) == 1 and _awaits(body := transform(code)):
                # The body begins in its second line, as in the cell that was typed.
                return f"get_ipython().time_cell()\n{body}"
            case "run_line_magic", code if _is_simple(inside := transform(code).strip()) and _awaits(inside):
                number, value = node.lineno - 1, node.value
                assert value.end_col_offset is not None
                line = lines[number]
                before, after = line[: value.col_offset], line[value.end_col_offset :]
                # An expression's value may be the cell's.
                if isinstance(node, ast.Assign) or not _is_expression(inside):
                    start = line[: node.col_offset]
                    lines[number] = (
                        start + b"with get_ipython().timing(): " + before[len(start) :]
                    ) + inside.encode() + after  # fmt: skip
                else:
                    lines[number] = before + f"get_ipython().timing().end({inside})".encode() + after
            case _:
                pass
    return b"\n".join(lines).decode()


def _timed_code(value: Any) -> tuple[str, str] | None:
    """Return by which method a call runs `%time` or `%%time`, and of which code; None for any other node."""
    match value:
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Name("get_ipython")), attr=method),
            args=[ast.Constant("time"), *rest],
        ) if method in _ARGUMENTS and len(rest) == _ARGUMENTS[method] - 1:
            texts = [
                text.value for text in rest if isinstance(text, ast.Constant) and isinstance(text.value, str)
            ]
            if len(texts) == len(rest) and (method == _LINE or not texts[0].strip()):
                return method, texts[-1]
        case _:
            pass
    return None


def _awaits(code: str) -> bool:
    try:
        made = compile(code, "<timed>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return bool(made.co_flags & CO_COROUTINE)


def _is_simple(code: str) -> bool:
    """Return whether code is one line of simple statements, which may stand behind a colon."""
    try:
        ast.parse(f"if 1: {code}")
    except (SyntaxError, ValueError):
        return False
    return "\n" not in code


def _is_expression(code: str) -> bool:
    try:
        compile(code, "<timed>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True
