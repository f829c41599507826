"""Texts of errors and logs at a length that a person can read, and a buffer for text in pieces."""

from typing import Final

_QUOTED_CHARS: Final = 100
_TRUNCATED_CHARS: Final = 1000

_SHORT_CHARS: Final = 256
"""A text with fewer characters takes more memory for the object than for its characters."""
_MAX_SHORT_PIECES: Final = 1024


def quoted(text: str) -> str:
    """Return an id or a name as an error shows it: escaped, and of at most 100 characters."""
    return (
        repr(text) if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]!r}… ({len(text):,} characters)"
    )


def truncated(text: str, most: int = _TRUNCATED_CHARS) -> str:
    """Return a text of at most `most` characters, and how long it was if it was longer."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


class TextBuffer(list[str]):
    """Text in pieces. A piece takes some 60 bytes by itself, so many short ones in a row are joined."""

    __slots__ = ("_short_in_row",)

    def __init__(self) -> None:
        """Start without pieces."""
        super().__init__()
        self._short_in_row = 0

    def add(self, text: str) -> None:
        """Add a piece."""
        self.append(text)
        if len(text) >= _SHORT_CHARS:
            self._short_in_row = 0
            return
        self._short_in_row += 1
        if self._short_in_row == _MAX_SHORT_PIECES:
            self[-_MAX_SHORT_PIECES:] = ("".join(self[-_MAX_SHORT_PIECES:]),)
            self._short_in_row = 0
