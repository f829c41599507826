"""Tells whether code is complete: whether an editor should run it, or let its user go on typing."""

import ast
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType] - not in typeshed
from typing import Final, Literal, TypedDict, cast

from pyrepl3_worker.code.pasted_prompts import strip_prompts

_ALLOW_TOP_LEVEL_AWAIT: Final = 0x2000
_ONLY_AST: Final = 0x400
_INDENT: Final = 4
_MAX_CHARS: Final = 1_000_000


class Completeness(TypedDict):
    """Whether code is complete."""

    status: Literal["complete", "incomplete", "invalid"]
    indent: str
    """Blanks for the next line of incomplete code."""


def check_completeness(code: object) -> Completeness:
    """Return whether a cell is complete, as Jupyter's `is_complete` does; nothing of it is run.

    A block of several lines is complete when a line ends it, which may be empty.

    Args:
        code: the cell.

    Raises:
        TypeError: it is no text.
        ValueError: it is too long.
    """
    if not isinstance(code, str):
        raise TypeError("the code must be a text")
    if len(code) > _MAX_CHARS:
        raise ValueError(f"code of more than {_MAX_CHARS:,} characters is not looked at")
    source = strip_prompts(code)
    if not source.strip():
        return {"status": "complete", "indent": ""}
    try:
        flags = _ONLY_AST | _ALLOW_TOP_LEVEL_AWAIT | cast(int, PyCF_ALLOW_INCOMPLETE_INPUT)
        compile(source, "<cell>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        if error.msg == "incomplete input":
            return {"status": "incomplete", "indent": _next_indent(source)}
        return {"status": "invalid", "indent": ""}
    except (ValueError, OverflowError, RecursionError, MemoryError):
        return {"status": "invalid", "indent": ""}
    return _of_code_that_compiles(source)


def _of_code_that_compiles(source: str) -> Completeness:
    try:
        # The compiler's later passes find other errors, such as a `break` outside of loops.
        compile(source, "<cell>", "exec", _ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        if error.msg != "'return' outside function":  # a cell may return
            return {"status": "invalid", "indent": ""}
    except (ValueError, OverflowError, RecursionError, MemoryError):
        return {"status": "invalid", "indent": ""}
    last = source.rpartition("\n")[2]
    if last.strip() and last[0] in " \t" and _ends_in_block(source):
        return {"status": "incomplete", "indent": _next_indent(source)}
    return {"status": "complete", "indent": ""}


def _ends_in_block(source: str) -> bool:
    """Return whether the last statement is a compound one, to which more lines could belong."""
    last = ast.parse(source).body[-1]
    return bool(getattr(last, "body", None)) or isinstance(last, ast.Match)


def _next_indent(source: str) -> str:
    """Return the indentation that the next line of unfinished code begins with."""
    last = next((line for line in reversed(source.split("\n")) if line.strip()), "")
    indent = last[: len(last) - len(last.lstrip())]
    return indent + " " * _INDENT if last.rstrip().endswith(":") else indent
