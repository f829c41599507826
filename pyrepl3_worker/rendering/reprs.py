"""Values as text of limited length, whatever the values are.

`bounded_repr` is what a result shows: it calls the values' own `__repr__`. `safe_repr` is for inspecting the
namespace while code runs: it calls only the interpreter's own.

Python's `repr` builds the whole text before anything can be cut from it, even of a list of ten million
numbers, or of a list that holds another one a million times. So the size of the exact built-in containers
and strings is estimated first, which is limited work. Those that are too large are written from both ends
until the room is used up.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, cast

from pyrepl3_schemas.head_tail import cut_marker, shorten_to_characters

_MAX_DEPTH: Final = 20
"""Levels that are written of containers that are too large for `repr`; deeper ones show as an ellipsis."""
_PLAIN_TYPES: Final = frozenset(
    {int, float, complex, bool, type(None), str, bytes, bytearray, range, type(...), type(NotImplemented)}
)
_TEXT_TYPES: Final = frozenset({str, bytes, bytearray})
_BRACKETS: Final[dict[type, tuple[str, str, str]]] = {
    list: ("[", "]", "[]"),
    tuple: ("(", ")", "()"),
    dict: ("{", "}", "{}"),
    set: ("{", "}", "set()"),
    frozenset: ("frozenset({", "})", "frozenset()"),
}
_ITEMS_CUT: Final = cut_marker("{:,} items")
_NO_ROOM: Final = "…"
_MIN_KEPT: Final = 8
"""The fewest characters of a text that are shown beside a marker."""
_name_of_type: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


def type_name(value: object) -> str:
    """Return the name of a value's type as text that encodes, without asking its metaclass for `__name__`."""
    return encodable(_name_of_type(type(value)))


def encodable(text: str) -> str:
    """Return a text with its lone surrogates escaped, so that it encodes as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _has_plain_hash(kind: type) -> bool:
    """Return whether a type is surely hashed by none of the code's own: by none of a metaclass's."""
    return type(kind) is type


def error_line(error: Exception) -> str:
    """Return an exception as one line of text that encodes, also when its own text fails."""
    try:
        return encodable(f"{type_name(error)}: {error}")
    except TimeoutError:
        raise
    except Exception as second:
        return f"{type_name(error)} (its text raises {type_name(second)})"


def bounded_repr(value: object, limit: int) -> tuple[str, bool]:
    """Return a value's repr in at most `limit` characters, and whether anything of it was left out.

    A longer one keeps its head and its tail. In place of a `__repr__` that raises stands a text that says
    so; what a cancel raises (`KeyboardInterrupt`, `CancelledError`, `TimeoutError`) goes through.

    Args:
        value: any object.
        limit: characters of the text, the marker included.

    Raises:
        TimeoutError: raised inside the value's `__repr__`, as is any exception that is not an `Exception`.
    """
    return _write_bounded(value, limit, _own_repr)


def safe_repr(value: object, limit: int) -> str:
    """Return at most `limit` characters for a value, without running any code but the interpreter's own.

    Built-in values show as they are, all others as `<TypeName object>`, inside containers too.
    """
    return _write_bounded(value, limit, _repr_without_user_code)[0]


def _write_bounded(value: object, limit: int, leaf: Callable[[object], str]) -> tuple[str, bool]:
    writer = _ReprWriter(leaf)
    try:
        text = writer.write(value, limit, 0)
    except TimeoutError:
        raise  # what a timeout raises in the value's own code
    except Exception as error:
        writer.cut = False
        text = f"<{type_name(value)} object; repr failed: {error_line(error)}>"
    if len(text) > limit:
        text = writer.shorten(text, limit)
    if not text.isascii():
        text = encodable(text)
        if len(text) > limit:
            text = writer.shorten(text, limit)
    return text, writer.cut


def _own_repr(value: object) -> str:
    if type(value) is int:
        return _int_repr(value)
    text = repr(value)
    # A `__repr__` may return a subclass of str that overrides its length.
    return text if type(text) is str else str.__str__(text)


def _int_repr(value: int) -> str:
    """Return decimal digits, or hexadecimal ones where the interpreter refuses to write so many."""
    try:
        return repr(value)
    except ValueError:
        return hex(value)


def _repr_without_user_code(value: object) -> str:
    kind = type(value)
    if kind is int:
        return _int_repr(cast(int, value))
    if _has_plain_hash(kind) and kind in _PLAIN_TYPES:
        return repr(value)
    if kind is FunctionType or kind is BuiltinFunctionType:
        return f"<function {cast(FunctionType, value).__qualname__}>"
    if kind is ModuleType:
        name = vars(cast(ModuleType, value)).get("__name__")
        return f"<module {name!r}>" if type(name) is str else "<module object>"
    if issubclass(kind, type):
        return f"<class {_name_of_type(cast(type, value))!r}>"
    return f"<{_name_of_type(kind)} object>"


class _ReprWriter:
    """Writes one value into limited room, and notes in `cut` whether something was left out."""

    __slots__ = ("_active", "_leaf", "_too_long", "_walks_containers", "cut")

    def __init__(self, leaf: Callable[[object], str]) -> None:
        self.cut = False
        self._leaf = leaf
        self._walks_containers = leaf is not _own_repr  # `repr` of a container would call the members' own
        self._active: set[int] = set()
        self._too_long: dict[int, int] = {}
        """Characters that a container's text does not fit into, by its id: it may be met again and again."""

    def write(self, value: object, room: int, depth: int) -> str:
        """Return the value's text, cut to about `room` characters."""
        kind = type(value)
        if not _has_plain_hash(kind):
            text = self._leaf(value)
            return text if len(text) <= room else self.shorten(text, room)
        if kind in _TEXT_TYPES:
            return self._write_text(cast(Any, value), room)
        if kind in _BRACKETS and (self._walks_containers or not self._may_fit(value, room)):
            return self._write_container(cast(Collection[Any], value), kind, room, depth)
        text = self._leaf(value)
        return text if len(text) <= room else self.shorten(text, room)

    def _may_fit(self, value: object, room: int) -> bool:
        if room <= self._too_long.get(id(value), -1):
            return False
        fits = _may_fit(value, room)
        if not fits:
            self._too_long[id(value)] = room
        return fits

    def shorten(self, text: str, room: int, missing: int = 0) -> str:
        """Return head and tail of a text, and a marker; `missing` characters were not even written."""
        self.cut = True
        kept = room - len(cut_marker(f"{len(text) + missing:,} characters"))
        return _NO_ROOM if kept < _MIN_KEPT else shorten_to_characters(text, kept, missing)

    def _write_text(self, value: Any, room: int) -> str:
        room = max(room, 0)
        missing = len(value) - 2 * room
        # Only what will be kept is escaped. Escapes make it longer, never shorter.
        text = repr(value) if missing <= 0 else repr(value[:room] + value[len(value) - room :])
        return text if len(text) <= room else self.shorten(text, room, max(missing, 0))

    def _write_container(self, value: Collection[Any], kind: type, room: int, depth: int) -> str:
        opening, closing, empty = _BRACKETS[kind]
        count = len(value)
        if not count:
            return empty
        if id(value) in self._active:
            return f"{opening}...{closing}"
        room -= len(opening) + len(closing)
        if count > 1:
            # Room for a marker that says that some are missing. A single one is always shown, cut if need be.
            room -= len(_ITEMS_CUT.format(count)) + len(", ")
        if depth >= _MAX_DEPTH or room <= 0:
            self.cut = True
            return f"{opening}…{closing}"
        self._active.add(id(value))
        try:
            parts = self._write_members(value, kind, count, room, depth + 1)
        finally:
            self._active.discard(id(value))
        comma = "," if kind is tuple and count == 1 else ""
        return f"{opening}{', '.join(parts)}{comma}{closing}"

    def _write_members(self, value: Any, kind: type, count: int, room: int, depth: int) -> list[str]:
        """Write members from the front, then (for a result, where there is an order) from the back."""
        ordered = not self._walks_containers and count > 1 and kind is not set and kind is not frozenset
        head = self._write_while_room(
            _members(value, kind), count, room - room // 2 if ordered else room, depth
        )
        tail: list[str] = []
        if ordered and len(head) < count:
            # The back may use what the front has left over.
            used = sum(map(len, head)) + 2 * len(head)
            tail = self._write_while_room(
                _members_reversed(value, kind), count - len(head), room - used, depth
            )
            tail.reverse()
        missing = count - len(head) - len(tail)
        if missing:
            self.cut = True
            head.append(_ITEMS_CUT.format(missing))
        return head + tail

    def _write_while_room(
        self, members: Iterator[tuple[Any, ...]], most: int, room: int, depth: int
    ) -> list[str]:
        """Write as many members as there is room for."""
        texts: list[str] = []
        for member in islice(members, most):
            key = [f"{self.write(part, room // 2, depth)}: " for part in member[:-1]]
            shown = self.write(member[-1], room - sum(map(len, key)) - len(", "), depth)
            text = "".join(key) + shown
            room -= len(text) + len(", ")
            if room < 0 or (shown == _NO_ROOM and texts):
                self.cut = True
                break
            texts.append(text)
        return texts


def _members(value: Any, kind: type) -> Iterator[tuple[Any, ...]]:
    return iter(value.items()) if kind is dict else ((item,) for item in value)


def _members_reversed(value: Any, kind: type) -> Iterator[tuple[Any, ...]]:
    return reversed(value.items()) if kind is dict else ((item,) for item in reversed(value))


def _may_fit(value: object, room: int) -> bool:
    """Return False when a container's repr certainly takes more than `room` characters.

    Each step uses up some room, so this ends for containers that hold themselves too.
    """
    waiting: list[object] = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if not _has_plain_hash(kind):
            room -= 1
        elif kind in _TEXT_TYPES:
            room -= len(cast(str, item))
        elif kind in _BRACKETS:
            members = cast(Collection[object], item)
            room -= 2 + 3 * len(members)
            if room < 0:
                return False
            waiting.extend(members)
            if kind is dict:
                waiting.extend(cast(dict[object, object], item).values())
        if room < 0:
            return False
    return True
