"""How much rich data one execution may show, and what stands where something did not fit.

A MIME bundle that does not fit leaves the representations that do, and a text that says of what type and size
the others were. The worker keeps the bound; the client has the same rule for a worker that does not. Pure.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from pyrepl3_schemas.head_tail import cut_marker
from pyrepl3_schemas.messages import Display

PLAIN_TEXT: Final = "text/plain"
_MAX_PLACEHOLDERS: Final = 100
"""Displays past the bound that leave a placeholder; of more, the last of them speaks."""
_MAX_NAMED: Final = 10
"""Representations of one display that a placeholder names."""
_LINE_BYTES: Final = 200
"""What each of these takes at most."""


def bundle_bytes(data: Mapping[str, str], metadata: Mapping[str, str]) -> int:
    """Return how many bytes a MIME bundle has, with its metadata."""
    return sum(len(mime) + _utf8_bytes(text) for part in (data, metadata) for mime, text in part.items())


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def fit_bundle(data: dict[str, str], metadata: dict[str, str], room: int, limit: str) -> dict[str, str]:
    """Return what fits of a bundle, the smallest first, with a placeholder for the rest.

    Args:
        data: representations by MIME type.
        metadata: what is sent with them as it is.
        room: bytes that all of it may have.
        limit: the limit that was passed, as the placeholder tells it: `max_display_bytes=400`.
    """
    sizes = {mime: len(mime) + _utf8_bytes(text) for mime, text in data.items()}
    room -= bundle_bytes({}, metadata)
    if sum(sizes.values()) <= room:
        return dict(data)
    room -= _LINE_BYTES * min(len(sizes), _MAX_NAMED)
    kept: set[str] = set()
    for mime in sorted(sizes, key=sizes.__getitem__):
        room -= sizes[mime]
        if room < 0:
            break
        kept.add(mime)
    left_out = [mime for mime in data if mime not in kept]
    lines = [
        cut_marker(f"{mime[:100]} of {sizes[mime] - len(mime):,} bytes", limit)
        for mime in left_out[:_MAX_NAMED]
    ]
    if len(left_out) > _MAX_NAMED:
        lines.append(cut_marker(f"{len(left_out) - _MAX_NAMED:,} more representations", limit))
    fitting = {mime: text for mime, text in data.items() if mime in kept}
    if fitting.get(PLAIN_TEXT):
        lines.insert(0, fitting[PLAIN_TEXT])
    fitting[PLAIN_TEXT] = "\n".join(lines)
    return fitting


class DisplayBudget:
    """What the displays of one execution take, and what may still come.

    An update counts in place of what it replaces, and what is cleared away counts no more.
    """

    __slots__ = ("_by_id", "_clears", "_limit", "_limit_text", "_placeholders", "_used", "cut")

    def __init__(self, limit: int | None, limit_text: str | None = None) -> None:
        """Start with nothing shown.

        Args:
            limit: bytes; None means that there is no limit.
            limit_text: how a placeholder tells the limit. By default it is `max_display_bytes`.
        """
        self._limit = limit
        self._limit_text = f"max_display_bytes={limit}" if limit_text is None else limit_text
        self._used = 0
        self._by_id: dict[str, int] = {}
        self._clears = False
        self._placeholders = 0
        self.cut = False
        """Whether anything was left out."""

    def clear(self, *, wait: bool) -> None:
        """Count nothing that was shown before: from now on, or from the next display on."""
        if wait:
            self._clears = True
        else:
            self._used = 0
            self._by_id.clear()
            self._clears = False

    def admit(self, message: Display, frame_room: int | None = None) -> Display | None:
        """Return a display as it may be shown, None if that is not at all.

        Args:
            message: no clearing one.
            frame_room: bytes that a message may have in any case; None means that it fits.
        """
        if self._clears:
            self.clear(wait=False)
        name = message.display_id
        replaced = self._by_id.get(name, 0) if name is not None and message.update else 0
        room, limit = self._room(replaced, frame_room)
        size = bundle_bytes(message.data, message.metadata)
        if size > room:
            self.cut = True
            if self._placeholders == _MAX_PLACEHOLDERS:
                return None
            self._placeholders += 1
            message = self._shorten(message, room, limit)
            size = bundle_bytes(message.data, message.metadata)
        self._used += size - replaced
        if name is not None:
            self._by_id[name] = size
        return message

    def admit_value(
        self, data: dict[str, str], metadata: dict[str, str], frame_room: int
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return what may be sent of a value's bundle and of its metadata."""
        room, limit = self._room(0, frame_room)
        if bundle_bytes(data, metadata) > room:
            self.cut = True
            shortened = self._shorten(Display(data, metadata=metadata), room, limit)
            data, metadata = shortened.data, shortened.metadata
        self._used += bundle_bytes(data, metadata)
        return data, metadata

    def _room(self, replaced: int, frame_room: int | None) -> tuple[float, str]:
        room = float("inf") if self._limit is None else self._limit - self._used + replaced
        if frame_room is not None and frame_room < room:
            return frame_room, "max_frame_bytes"
        return room, self._limit_text

    def _shorten(self, message: Display, room: float, limit: str) -> Display:
        metadata = message.metadata
        if bundle_bytes({}, metadata) > room // 2:
            metadata = {}
        data = fit_bundle(message.data, metadata, int(room), limit)
        if self._placeholders == _MAX_PLACEHOLDERS:
            data[PLAIN_TEXT] = f"{data.get(PLAIN_TEXT, '')}\n{cut_marker('all further displays', limit)}"
        return msgspec.structs.replace(message, data=data, metadata=metadata)
