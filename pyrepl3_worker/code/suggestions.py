"""Suggestions for code that does not compile: mended code that does."""

import re
from typing import Final

from pyrepl3_worker.code.compiler import filename_of

_OPENERS: Final = re.compile(
    r"^\s*(if|elif|else|for|while|def|class|try|except|finally|with|match|case|async\s+(def|for|with))\b"
)
_PRINT: Final = re.compile(r"^(\s*)print\s+(?!\()(\S.*?)\s*$")
_LARGEST: Final = 200_000
"""Characters; mending longer code would cost more than it gives."""


class ErrorRecovery:
    """The specification's strategies: missing colons, indentation, print statements."""

    @staticmethod
    def handle_compilation_error(error: SyntaxError, code: str) -> str | None:
        """Give the whole code, mended so that it compiles, or None.

        A mend touches the line the compiler complains of, or the one before; several faults of one
        kind are mended one after the other.
        """
        if len(code) > _LARGEST:
            return None
        for _ in range(10):
            line = error.lineno
            if line is None:
                return None
            remaining: SyntaxError | None = None
            for mended in _mends(code, line):
                if mended == code:
                    continue
                again = _compile_error(mended)
                if again is None:
                    return mended
                if again.lineno is not None and again.lineno > line and remaining is None:
                    remaining, code = again, mended
                    break
            if remaining is None:
                return None
            error = remaining
        return None

    @staticmethod
    def handle_async_context_error(error: BaseException) -> str | None:
        """Give advice for an error about event loops, or None when it is about something else."""
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


def _mends(code: str, lineno: int) -> list[str]:
    lines = code.split("\n")
    mends: list[str] = []
    for at in (lineno - 1, lineno - 2):
        if not 0 <= at < len(lines):
            continue
        line = lines[at]
        match = _PRINT.match(line)
        if match:
            mends.append(_with(lines, at, f"{match[1]}print({match[2].rstrip(',')})"))
        bare, comment = _split_comment(line)
        if _OPENERS.match(line) and not bare.endswith(":"):
            mends.append(_with(lines, at, f"{bare}:{comment}"))
        mends.extend(_indentation_mends(lines, at))
    return mends


def _split_comment(line: str) -> tuple[str, str]:
    """A line without its trailing comment and blanks, and those. Wrong within strings, hence compiled."""
    at = line.find("#")
    bare = (line if at < 0 else line[:at]).rstrip()
    return bare, line[len(bare) :]


def _indentation_mends(lines: list[str], at: int) -> list[str]:
    mends: list[str] = []
    line = lines[at]
    if "\t" in line:
        mends.append("\n".join(text.expandtabs(4) for text in lines))
    before = next((text for text in reversed(lines[:at]) if text.strip()), "")
    indent = len(before) - len(before.lstrip())
    text = line.lstrip()
    if not text:
        return mends
    if _OPENERS.match(before) and _split_comment(before)[0].endswith(":"):
        mends.append(_with(lines, at, " " * (indent + 4) + text))
    mends.append(_with(lines, at, " " * indent + text))
    if not before:
        # A whole block pasted with its indentation.
        own = line[: len(line) - len(text)]
        mends.append("\n".join(other.removeprefix(own) for other in lines))
    return mends


def _with(lines: list[str], at: int, line: str) -> str:
    return "\n".join([*lines[:at], line, *lines[at + 1 :]])
