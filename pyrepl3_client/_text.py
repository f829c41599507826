"""Texts of messages and logs at a length that a person reads, and long texts in pieces."""

from typing import Final

_QUOTED_CHARS: Final = 100
_TRUNCATED_CHARS: Final = 1000

_SHORT_CHARS: Final = 256
"""Characters of a text that takes more memory for being one than for its characters."""
_MAX_SHORT_PIECES: Final = 1024


def quoted(text: str) -> str:
    """Give an id or a name for a message: escaped, and no longer than a person reads."""
    return (
        repr(text) if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]!r}… ({len(text):,} characters)"
    )


def truncated(text: str, most: int = _TRUNCATED_CHARS) -> str:
    """Give a reason or a complaint at a length that logs and records can bear."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


class TextBuffer(list[str]):
    """Text in pieces. A piece takes some 60 bytes by itself, so short ones in a row become one."""

    __slots__ = ("_short_in_row",)

    def __init__(self) -> None:
        """Have none."""
        super().__init__()
        self._short_in_row = 0

    def add(self, text: str) -> None:
        """Take a piece."""
        self.append(text)
        if len(text) >= _SHORT_CHARS:
            self._short_in_row = 0
            return
        self._short_in_row += 1
        if self._short_in_row == _MAX_SHORT_PIECES:
            self[-_MAX_SHORT_PIECES:] = ("".join(self[-_MAX_SHORT_PIECES:]),)
            self._short_in_row = 0
