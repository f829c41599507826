"""Messages as JSON, for people, for the golden vectors and for tools. Nothing on the wire is JSON.

Fields look as `protocol.schema.json` says: bytes are base64 strings. A free value (`value`, `args`,
`kwargs`) is MessagePack data, which says more than JSON can; what JSON has no word for is an object
with one key that begins with `$`:

    {"$bytes": "base64"}     {"$map": [[key, value], ...]}     {"$ext": [code, "base64"]}
    {"$float": "nan"}        {"$int": "18446744073709551615"}  {"$time": "2026-01-31T12:00:00Z"}

`$map` stands for maps with a key that is no string or begins with `$`, `$int` for integers past
±2**53, `$float` for `nan`, `inf` and `-inf`.
"""

import base64
import math
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from pyrepl3_schemas.messages import FromWorker, Message, ToWorker

_MAX_EXACT_INT: Final = 2**53
_BY_TAG: Final[dict[bool, dict[str, type[Message]]]] = {
    to_worker: {str(cls.__struct_config__.tag): cls for cls in union.__args__}
    for to_worker, union in ((True, ToWorker.__value__), (False, FromWorker.__value__))
}


def message_types(*, to_worker: bool) -> dict[str, type[Message]]:
    """Return the message classes of one direction by their `type`."""
    return dict(_BY_TAG[to_worker])


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as data that `json.dumps` takes; fields at their default are left out.

    Raises:
        msgspec.DecodeError: a free value of it is not MessagePack.
    """
    free = {
        name: value
        for name in message.__struct_fields__
        if isinstance(value := getattr(message, name), msgspec.Raw)
    }
    # Raw has no JSON form, so it is taken out while msgspec converts the rest.
    plain = msgspec.structs.replace(message, **dict.fromkeys(free, msgspec.UNSET))
    form: dict[str, Any] = msgspec.to_builtins(plain, builtin_types=())
    for name, raw in free.items():
        form[name] = value_to_json(msgspec.msgpack.decode(raw))
    return form


def from_json(form: dict[str, Any], *, to_worker: bool) -> Message:
    """Return the message that a JSON form stands for.

    Raises:
        msgspec.ValidationError: the form is not a message of that direction.
        TypeError, OverflowError: a free value has no MessagePack form.
    """
    types = _BY_TAG[to_worker]
    cls = types.get(form.get("type", ""))
    if cls is None:
        raise msgspec.ValidationError(f"type {form.get('type')!r} is none of {', '.join(types)}")
    form = dict(form)
    for field in msgspec.structs.fields(cls):
        if field.name in form and _is_free_value(field.type):
            form[field.name] = msgspec.Raw(msgspec.msgpack.encode(value_from_json(form[field.name])))
    return msgspec.convert(form, cls)


def value_to_json(value: Any) -> Any:
    """Return MessagePack data (what `msgspec.msgpack.decode` gives) as JSON data."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -_MAX_EXACT_INT <= value <= _MAX_EXACT_INT else {"$int": str(value)}
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case bytes():
            return {"$bytes": _to_base64(value)}
        case list() | tuple():
            return [value_to_json(item) for item in cast("list[Any]", value)]
        case dict():
            pairs = cast("dict[Any, Any]", value)
            if all(isinstance(key, str) and not key.startswith("$") for key in pairs):
                return {key: value_to_json(item) for key, item in pairs.items()}
            return {"$map": [[value_to_json(key), value_to_json(item)] for key, item in pairs.items()]}
        case msgspec.msgpack.Ext():
            return {"$ext": [value.code, _to_base64(bytes(value.data))]}
        case datetime():
            return {"$time": msgspec.to_builtins(value)}
        case _:
            raise TypeError(f"a {type(value).__name__} is not what MessagePack decodes to")


def value_from_json(form: Any) -> Any:
    """Return the plain data that JSON data stands for.

    Raises:
        ValueError: an object with a `$` key that has no meaning here.
    """
    if isinstance(form, list):
        return [value_from_json(item) for item in cast("list[Any]", form)]
    if not isinstance(form, dict):
        return form
    match cast("dict[str, Any]", form):
        case {"$bytes": str(text), **rest} if not rest:
            return base64.b64decode(text, validate=True)
        case {"$float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
            return float(text)
        case {"$int": str(text), **rest} if not rest:
            return int(text)
        case {"$map": [*pairs], **rest} if not rest:
            return {_as_map_key(value_from_json(key)): value_from_json(item) for key, item in pairs}
        case {"$ext": [int(code), str(text)], **rest} if not rest:
            return msgspec.msgpack.Ext(code, base64.b64decode(text, validate=True))
        case {"$time": str(text), **rest} if not rest:
            return msgspec.convert(text, datetime)
        case pairs:
            if strange := [key for key in pairs if key.startswith("$")]:
                raise ValueError(f"{strange[0]!r} has no meaning here")
            return {key: value_from_json(item) for key, item in pairs.items()}


def _as_map_key(key: Any) -> Any:
    """Return an array as the tuple that it is as a map's key."""
    return tuple(_as_map_key(item) for item in cast("list[Any]", key)) if isinstance(key, list) else key


def _is_free_value(kind: Any) -> bool:
    """Return whether a field holds MessagePack data of any shape."""
    kind = getattr(kind, "__value__", kind)
    return kind is msgspec.Raw or msgspec.Raw in getattr(kind, "__args__", ())


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
