"""Suggests corrections of code that does not compile, and advice for errors about event loops."""

import re
from typing import Final

from pyrepl3_worker.code.compiler import filename_of

# Strings, which `re` compiles when they are first used: each worker's start would pay for it otherwise.
_BLOCK_STATEMENT: Final = (
    r"^\s*(if|elif|else|for|while|def|class|try|except|finally|with|match|case|async\s+(def|for|with))\b"
)
_PRINT_STATEMENT: Final = r"^(\s*)print\s+(?!\()(\S.*?)\s*$"
_MAX_CHARS: Final = 200_000
"""Longer code is not corrected: that would take too long."""


class ErrorRecovery:
    """The specification's corrections: missing colons, indentation, print statements."""

    @staticmethod
    def handle_compilation_error(error: SyntaxError, code: str) -> str | None:
        """Return the whole code with corrections, so that it compiles; None if they are not found.

        A correction changes the line that the compiler reports, or the line before; several mistakes are
        corrected one after the other.

        Args:
            error: the compiler's error.
            code: the code.
        """
        if len(code) > _MAX_CHARS:
            return None
        for _ in range(10):
            line = error.lineno
            if line is None:
                return None
            later_error: SyntaxError | None = None
            for fixed in _candidate_fixes(code, line):
                if fixed == code:
                    continue
                next_error = _compile_error(fixed)
                if next_error is None:
                    return fixed
                if next_error.lineno is not None and next_error.lineno > line and later_error is None:
                    later_error, code = next_error, fixed
                    break
            if later_error is None:
                return None
            error = later_error
        return None

    @staticmethod
    def handle_async_context_error(error: BaseException) -> str | None:
        """Return advice for an error about event loops; None if the error is about something else.

        Args:
            error: the exception that the cell raised.
        """
        text = str(error)
        if "no running event loop" in text:
            return "await it at the top level, or run it with asyncio.run(...): both work in a cell"
        if "cannot be called from a running event loop" in text or "already running" in text:
            return "the session's loop runs already: await the coroutine instead"
        if "attached to a different loop" in text:
            return "it belongs to the loop of an asyncio.run(...): make it in the cell that awaits it"
        return None


def _compile_error(code: str) -> SyntaxError | None:
    import ast

    try:
        compile(code, filename_of(code), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return error
    except (ValueError, OverflowError, RecursionError, MemoryError):
        return SyntaxError("not mendable")
    return None


def _candidate_fixes(code: str, lineno: int) -> list[str]:
    lines = code.split("\n")
    fixes: list[str] = []
    for at in (lineno - 1, lineno - 2):
        if not 0 <= at < len(lines):
            continue
        line = lines[at]
        match = re.match(_PRINT_STATEMENT, line)
        if match:
            fixes.append(_replace_line(lines, at, f"{match[1]}print({match[2].rstrip(',')})"))
        bare, comment = _split_comment(line)
        if re.match(_BLOCK_STATEMENT, line) and not bare.endswith(":"):
            fixes.append(_replace_line(lines, at, f"{bare}:{comment}"))
        fixes.extend(_indentation_fixes(lines, at))
    return fixes


def _split_comment(line: str) -> tuple[str, str]:
    """Return a line without its trailing comment and blanks, and those.

    It is wrong about a `#` in a string; the correction does not compile then, and is dropped.
    """
    at = line.find("#")
    bare = (line if at < 0 else line[:at]).rstrip()
    return bare, line[len(bare) :]


def _indentation_fixes(lines: list[str], at: int) -> list[str]:
    fixes: list[str] = []
    line = lines[at]
    if "\t" in line:
        fixes.append("\n".join(text.expandtabs(4) for text in lines))
    before = next((text for text in reversed(lines[:at]) if text.strip()), "")
    indent = len(before) - len(before.lstrip())
    text = line.lstrip()
    if not text:
        return fixes
    if re.match(_BLOCK_STATEMENT, before) and _split_comment(before)[0].endswith(":"):
        fixes.append(_replace_line(lines, at, " " * (indent + 4) + text))
    fixes.append(_replace_line(lines, at, " " * indent + text))
    if not before:
        # A whole block pasted with its indentation.
        own = line[: len(line) - len(text)]
        fixes.append("\n".join(other.removeprefix(own) for other in lines))
    return fixes


def _replace_line(lines: list[str], at: int, line: str) -> str:
    return "\n".join([*lines[:at], line, *lines[at + 1 :]])
