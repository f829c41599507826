"""Texts of errors and logs: of a length that can be read, and without what a terminal or a log obeys."""

import re
from typing import Final

_QUOTED_CHARS: Final = 100
_TRUNCATED_CHARS: Final = 1000

_OBEYED: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""Control characters other than tabs and line ends; those that separate lines or change the direction of
writing; and surrogates, which no stream takes."""


def printable(text: str) -> str:
    """Return a text as a terminal may show it: what code has put there to be obeyed, not read, is escaped."""
    return _OBEYED.sub(_escape, text)


def on_one_line(text: str) -> str:
    """Return a text as part of a line: like `printable`, with line ends escaped too."""
    return printable(text).replace("\n", "\\n")


def as_log_line(text: str) -> str:
    """Return a text as the log has it: like `printable`, and all its lines but the first indented."""
    return printable(text).replace("\n", "\n    ")


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def quoted(text: str) -> str:
    """Return an id or a name as an error shows it: escaped, and of at most 100 characters."""
    return (
        repr(text) if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]!r}… ({len(text):,} characters)"
    )


def truncated(text: str, most: int = _TRUNCATED_CHARS) -> str:
    """Return a text of at most `most` characters, and how long it was if it was longer."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
