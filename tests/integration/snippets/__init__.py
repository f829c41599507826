"""The shape of a row in the tables of snippets, and all rows together.

A row is what a person would type, cell by cell, and what they should see. Rows of one group run in one
session, one after the other, as in a long notebook; so a row brings everything it needs.
"""

import sys
from dataclasses import dataclass
from textwrap import dedent
from typing import Any, Final

ANY: Final = object()
"""This row does not say what the value is."""

NEWEST: Final = (99, 0)


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """One row: code, and what comes of it. Texts are dedented, so that they can stand in place.

    `before` are cells that run first and must succeed. `value` is compared with the decoded value,
    `repr` with its text. `stdout` and `stderr` are exact. With `error` the code must fail with that
    exception type; `message` must then be contained in its text and `line` is that of the innermost
    frame in a cell. `since` and `until` (exclusive) are the Python versions for which the row holds.
    """

    name: str
    code: str
    before: tuple[str, ...] = ()
    value: object = ANY
    repr: str | None = None
    type_name: str | None = None
    stdout: str = ""
    stderr: str | None = ""
    mode: str | None = None
    error: str | None = None
    kind: str = "exception"
    message: str = ""
    line: int | None = None
    since: tuple[int, int] = (3, 12)
    until: tuple[int, int] = NEWEST

    @property
    def source(self) -> str:
        """The code without the indentation of the table around it."""
        return _cell(self.code)

    @property
    def sources_before(self) -> list[str]:
        """The same for the cells before."""
        return [_cell(code) for code in self.before]

    @property
    def holds_here(self) -> bool:
        """Whether the row speaks of this Python."""
        return self.since <= sys.version_info[:2] < self.until


def _cell(code: str) -> str:
    return dedent(code).removeprefix("\n") if code.startswith("\n") else code


def tables() -> dict[str, list[Snippet]]:
    """Return every row by its group."""
    from tests.integration.snippets import async_, classes, errors, functions, history, language, library

    groups: dict[str, Any] = {
        "language": language,
        "functions": functions,
        "classes": classes,
        "async": async_,
        "library": library,
        "errors": errors,
        "history": history,
    }
    return {name: module.ROWS for name, module in groups.items()}
