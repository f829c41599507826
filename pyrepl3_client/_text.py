"""Texts of messages and logs at a length that a person reads, and long texts in pieces."""

from typing import Final

_SHOWN: Final = 100
_REASON: Final = 1000

SHORT: Final = 256
"""Characters of a text that takes more memory for being one than for its characters."""
_MANY: Final = 1024


def quoted(text: str) -> str:
    """Give an id or a name for a message: escaped, and no longer than a person reads."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text):,} characters)"


def truncated(text: str, most: int = _REASON) -> str:
    """Give a reason or a complaint at a length that logs and records can bear."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


class TextBuffer(list[str]):
    """Text in pieces. A piece takes some 60 bytes by itself, so short ones in a row become one."""

    __slots__ = ("_row",)

    def __init__(self) -> None:
        """Have none."""
        super().__init__()
        self._row = 0

    def add(self, text: str) -> None:
        """Take a piece."""
        self.append(text)
        if len(text) >= SHORT:
            self._row = 0
            return
        self._row += 1
        if self._row == _MANY:
            self[-_MANY:] = ("".join(self[-_MANY:]),)
            self._row = 0
