"""Texts of errors and logs at a length that a person can read."""

from typing import Final

_QUOTED_CHARS: Final = 100
_TRUNCATED_CHARS: Final = 1000


def quoted(text: str) -> str:
    """Return an id or a name as an error shows it: escaped, and of at most 100 characters."""
    return (
        repr(text) if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]!r}… ({len(text):,} characters)"
    )


def truncated(text: str, most: int = _TRUNCATED_CHARS) -> str:
    """Return a text of at most `most` characters, and how long it was if it was longer."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
