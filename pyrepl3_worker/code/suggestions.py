"""Suggests corrections of code that does not compile, and advice for errors about event loops.

A suggestion is the program that was meant, or there is none. A pasted block is dedented as a whole before any
line is looked at. Of the places to which a line with a wrong indentation could belong, one is suggested only
if it is the only one that compiles.
"""

import re
from collections.abc import Iterator
from typing import Final

from pyrepl3_worker.code.cell_sources import filename_of
from pyrepl3_worker.code.function_wrapper import wrap_in_function

# Strings, which `re` compiles when they are first used: each worker's start would pay for it otherwise.
_STRING_OR_COMMENT: Final = r"#[^\n]*|(\"\"\"|'''|\"|')"
_CONTINUES_BLOCK: Final = r"\s*(elif|else|except|finally)\b"
_INDENT: Final = re.compile(r"[ \t\f]*")
_MAX_CHARS: Final = 200_000
"""Longer code is not corrected: that would take too long."""
_MAX_MENDS: Final = 10
_MAX_STATEMENTS: Final = 20
"""Statements, after a header without a block, that are tried as that block."""


class ErrorRecovery:
    """The specification's corrections: missing colons, indentation, print statements."""

    @staticmethod
    def handle_compilation_error(error: SyntaxError, code: str) -> str | None:
        """Return the whole code with corrections, so that it compiles; None if they are not found.

        Several mistakes are corrected one after the other.

        Args:
            error: the compiler's error.
            code: the code.
        """
        if len(code) > _MAX_CHARS:
            return None
        # One from a file counts that file's lines.
        found = error if error.filename == filename_of(code) else _compile_error(code)
        dedented = _dedent(code)
        if dedented is not None:
            code, found = dedented, _compile_error(dedented, returns=True)
        for _ in range(_MAX_MENDS):
            if found is None:
                return code
            mended = _mend_once(found, code)
            if mended is None:
                return None
            code, found = mended
        return code if found is None else None

    @staticmethod
    def handle_async_context_error(error: BaseException) -> str | None:
        """Return advice for an error about event loops or awaiting; None if it is about something else.

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
        if "can't be used in 'await' expression" in text or "coroutine or an awaitable is required" in text:
            return (
                "that is a value already: a function that is not async, a synchronous host function too, is "
                "done when its call returns; for several at once use asyncio.to_thread(function, ...)"
            )
        return None


def _compile_error(code: str, *, returns: bool = False) -> SyntaxError | None:
    """Return the error of the code, if it has one; `returns` allows a `return` at the top level."""
    import ast

    try:
        compile(code, filename_of(code), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        if returns and error.msg == "'return' outside function":
            try:
                compile(wrap_in_function(ast.parse(code), None, "cell", is_async=True), "cell", "exec")
            except SyntaxError:
                return error
            return None
        return error
    except (ValueError, OverflowError, RecursionError, MemoryError):
        return SyntaxError("not mendable")
    return None


def _mend_once(error: SyntaxError, code: str) -> tuple[str, SyntaxError | None] | None:
    """Correct the mistake that the compiler reports; return the code with the next error, if there is one.

    None is returned if there is no correction, or more than one.
    """
    if error.lineno is None:
        return None
    compiling: list[str] = []
    advancing: list[tuple[str, SyntaxError]] = []
    for mended in _candidates(error, code.split("\n")):
        if mended == code:
            continue
        left = _compile_error(mended)
        if left is None:
            if not _is_same_program(compiling, mended):
                compiling.append(mended)
        elif left.lineno is not None and left.lineno > error.lineno:
            advancing.append((mended, left))
    if compiling:
        return (compiling[0], None) if len(compiling) == 1 else None
    return advancing[0] if len(advancing) == 1 else None


def _is_same_program(known: list[str], code: str) -> bool:
    import ast

    return any(ast.dump(ast.parse(other)) == ast.dump(ast.parse(code)) for other in known)


def _candidates(error: SyntaxError, lines: list[str]) -> Iterator[str]:
    assert error.lineno is not None
    at = error.lineno - 1
    message = str(error.msg)
    if not 0 <= at < len(lines):
        return
    if message == "expected ':'":
        yield from _with_colon(lines, at, error.offset or 0)
    elif message.startswith("Missing parentheses in call to 'print'"):
        yield from _with_parentheses(lines, error)
    elif isinstance(error, TabError):
        for width in (4, 8):
            yield _expand_indents(lines, width)
    elif message.startswith("expected an indented block"):
        yield from _with_block(lines, at)
    elif isinstance(error, IndentationError):
        yield from _on_other_levels(lines, at)


def _with_colon(lines: list[str], at: int, offset: int) -> Iterator[str]:
    line = lines[at]
    head, rest = line[: offset - 1].rstrip(), line[offset - 1 :].lstrip()
    # Not before anything else: `if a b: c` would become an annotation in a block.
    if head and (not rest or rest.startswith("#")):
        yield "\n".join([*lines[:at], f"{head}:{line[len(head) :]}", *lines[at + 1 :]])


def _with_parentheses(lines: list[str], error: SyntaxError) -> Iterator[str]:
    if error.lineno is None or not error.offset or not error.end_lineno or not error.end_offset:
        return
    first, last = error.lineno - 1, error.end_lineno - 1
    before, after = lines[first][: error.offset - 1], lines[last][error.end_offset - 1 :]
    inside = [*lines[first:last], lines[last][: error.end_offset - 1]]
    inside[0] = inside[0][error.offset - 1 :].removeprefix("print").lstrip()
    text = "\n".join(inside).rstrip()
    if text.endswith(","):
        text += ' end=" "'
    yield "\n".join([*lines[:first], f"{before}print({text}){after}", *lines[last + 1 :]])


# --- indentation ------------------------------------------------------------------------------------------


def _lines_inside_strings(code: str) -> frozenset[int]:
    """Return the indices of the lines that begin inside a string: their indentation is the string's."""
    inside: set[int] = set()
    at = 0
    while (opening := re.compile(_STRING_OR_COMMENT).search(code, at)) is not None:
        quote, start, at = opening[1], opening.start(), opening.end()
        if quote is None:
            continue
        stop = re.compile(rf"\\[\s\S]?|{quote}" + ("" if len(quote) == 3 else "|\n"))
        while (found := stop.search(code, at)) is not None and found[0].startswith("\\"):
            at = found.end()
        at = len(code) if found is None else found.end()
        if found is not None and found[0] == "\n":
            continue
        first = code.count("\n", 0, start)
        inside.update(range(first + 1, first + 1 + code.count("\n", start, at)))
    return frozenset(inside)


def _indent_of(line: str) -> str:
    found = _INDENT.match(line)
    return "" if found is None else found[0]


def _is_code(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith("#")


def _dedent(code: str) -> str | None:
    """Return an indented block without its indentation; None for code that is no such block."""
    import ast

    lines = code.split("\n")
    first = next((line for line in lines if _is_code(line)), "")
    margin = _indent_of(first)
    if not margin:
        return None
    inside = _lines_inside_strings(code)
    dedented = [line if at in inside else line.removeprefix(margin) for at, line in enumerate(lines)]
    text = "\n".join(dedented)
    try:
        block = ast.parse(f"if 1:\n{code}")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # It has other mistakes, or lines that are indented less.
        outside = (line for at, line in enumerate(lines) if at not in inside and _is_code(line))
        return text if all(line.startswith(margin) for line in outside) else None
    statement = block.body[0]
    if len(block.body) > 1 or not isinstance(statement, ast.If):
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    meant = ast.Module(statement.body, [])
    return text if ast.dump(tree) == ast.dump(meant) else None


def _expand_indents(lines: list[str], width: int) -> str:
    inside = _lines_inside_strings("\n".join(lines))
    expanded: list[str] = []
    for at, line in enumerate(lines):
        indent = _indent_of(line)
        expanded.append(line if at in inside else indent.expandtabs(width) + line[len(indent) :])
    return "\n".join(expanded)


def _shift(lines: list[str], first: int, end: int, before: str, after: str) -> str:
    """Replace the indentation `before` of some lines by `after`, but not inside strings."""
    inside = _lines_inside_strings("\n".join(lines))
    return "\n".join(
        after + line.removeprefix(before)
        if first <= at < end and at not in inside and line.startswith(before) and line.strip()
        else line
        for at, line in enumerate(lines)
    )


def _end_of_run(lines: list[str], at: int, indent: str) -> int:
    """Return the end of the lines from `at` on that are indented by `indent` or more."""
    for end in range(at + 1, len(lines)):
        if _is_code(lines[end]) and not lines[end].startswith(indent):
            return end
    return len(lines)


def _on_other_levels(lines: list[str], at: int) -> Iterator[str]:
    """Move the lines that are indented wrongly to each level that is open there."""
    own = _indent_of(lines[at])
    end = _end_of_run(lines, at, own)
    innermost: str | None = None
    for line in reversed(lines[:at]):
        if not _is_code(line):
            continue
        level = _indent_of(line)
        if innermost is None or len(level) < len(innermost):
            innermost = level
            if level != own:
                yield _shift(lines, at, end, own, level)
    if innermost is None and own:
        yield _shift(lines, at, end, own, "")


def _with_block(lines: list[str], at: int) -> Iterator[str]:
    """Indent what follows a header that has no block: its first statement, its first two, and so on.

    What stands between the header and its `else` is its block in any case.
    """
    import ast

    level = _indent_of(lines[at])
    end = _end_of_run(lines, at, level)
    branch = next((i for i in range(at, end) if re.match(level + _CONTINUES_BLOCK, lines[i])), None)
    if branch is not None and _indent_of(lines[branch]) == level:
        if branch > at:
            yield _shift(lines, at, branch, level, f"{level}    ")
        return
    block = "\n".join(line.removeprefix(level) for line in lines[at:end])
    try:
        statements = ast.parse(block).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for statement in statements[:_MAX_STATEMENTS]:
        stop = at + (statement.end_lineno or 1)
        yield _shift(lines, at, stop, level, f"{level}    ")
