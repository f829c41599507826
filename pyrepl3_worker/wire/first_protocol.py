"""Leaves out of messages what a client of protocol 1 does not know.

A field that is left out has its default, and is not sent then. Whatever else decides what such a client gets,
this is the last word: all frames go through it.
"""

from typing import Any, Final

import msgspec

from pyrepl3_schemas.messages import (
    Abandoned,
    Chunk,
    Display,
    FromWorker,
    Progress,
    Response,
    Unsaved,
    Variable,
)

_UNKNOWN_MESSAGES: Final = (Abandoned, Chunk, Progress, Response)
_NEW_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "display": ("late",),
    "error": ("changed",),
    "result": ("changed", "data", "metadata", "value_note"),
}
"""By the tag of a message."""
_NEW_FIELDS_OF_PARTS: Final[dict[type[msgspec.Struct], tuple[str, ...]]] = {
    Unsaved: ("as_of",),
    Variable: ("dtype", "length", "shape"),
}
_WITH_PARTS: Final = {"checkpointed": "unsaved", "inspection": "variables", "restored": "unsaved"}
"""The fields that hold a list of such parts, by the tag of their message."""


def as_first_protocol(message: FromWorker) -> FromWorker | None:
    """Return a message as protocol 1 has it; None if that has no such message."""
    if isinstance(message, _UNKNOWN_MESSAGES) or (isinstance(message, Display) and message.clear):
        return None
    tag = message.__struct_config__.tag
    changes = _defaults(type(message), _NEW_FIELDS.get(str(tag), ()))
    field = _WITH_PARTS.get(str(tag))
    if field is not None:
        parts: list[msgspec.Struct] = getattr(message, field)
        changes[field] = [_part(each) for each in parts]
    return msgspec.structs.replace(message, **changes) if changes else message


def _part(part: msgspec.Struct) -> msgspec.Struct:
    return msgspec.structs.replace(part, **_defaults(type(part), _NEW_FIELDS_OF_PARTS[type(part)]))


def _defaults(kind: type[msgspec.Struct], names: tuple[str, ...]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind) if names else ():
        if field.name in names:
            made = field.default_factory
            defaults[field.name] = field.default if made is msgspec.NODEFAULT else made()
    return defaults
