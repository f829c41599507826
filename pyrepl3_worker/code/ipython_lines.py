"""Recognises lines of IPython's syntax in a session that speaks Python alone, and says what they are."""

import ast
import re
from typing import Final

_KINDS: Final = (
    (r"\s*%%[A-Za-z_]", "a cell magic of IPython"),
    (r"\s*%\s*[A-Za-z_]", "a line magic of IPython"),
    (r"\s*!", "a shell command in IPython's syntax"),
    (r"[^#'\"]*?=\s*%[A-Za-z_]", "an assignment from a line magic of IPython"),
    (r"[^#'\"]*?=\s*!", "an assignment from a shell command in IPython's syntax"),
    (r"\s*\?{1,2}\s*[%A-Za-z_*]", "a request for help in IPython's syntax"),
    (r"\s*%{0,2}[A-Za-z_*][\w.*\[\]]*\s*\?{1,2}\s*(?:#.*)?$", "a request for help in IPython's syntax"),
    (r"\s*(?:pip3?|conda|mamba|uv) (?:pip )?(?:install|uninstall|list|show|add)\b", "a shell command"),
)
"""Patterns of lines, with what to call them. `re` compiles them when code does not compile, not before."""
_MAX_SHOWN: Final = 60


def explain_ipython_line(error: SyntaxError, source: str) -> str | None:
    """Return the text of an error for a line of IPython's syntax; None for any other line.

    Args:
        error: the compiler's error.
        source: the cell.
    """
    if error.lineno is None:
        return None
    lines = source.split("\n")
    at = error.lineno - 1
    if not 0 <= at < len(lines):
        return None
    line = lines[at].rstrip("\r")
    what = next((what for pattern, what in _KINDS if re.match(pattern, line)), None)
    if what is None or not _is_at_fault(lines, at):
        return None
    shown = line.strip()
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
    return (
        f"{shown!r} is {what}, not Python. A session opened with "
        'ExecutorConfig(syntax="ipython") runs it; its Python needs the extra pyrepl3[ipython]'
    )


def _is_at_fault(lines: list[str], at: int) -> bool:
    """Return whether it is the first line, or the code compiles beyond it with `pass` in its place."""
    line = lines[at]
    indent = line[: len(line) - len(line.lstrip())]
    if not "".join(lines[:at]).strip():
        return True
    if line.lstrip().startswith("%%"):
        return False
    try:
        ast.parse("\n".join([*lines[:at], f"{indent}pass", *lines[at + 1 :]]))
    except SyntaxError as error:
        return error.lineno is not None and error.lineno > at + 1
    except (ValueError, RecursionError, MemoryError):
        return False
    return True
