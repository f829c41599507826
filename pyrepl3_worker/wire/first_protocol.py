"""Leaves out of messages what a client of protocol 1 does not know: all that is not in these tables.

A field that is left out has its default, and is not sent then. Whatever else decides what such a client gets,
this is the last word: all frames go through it.
"""

from functools import cache
from typing import Any, Final

import msgspec

from pyrepl3_schemas.messages import Display, FromWorker

_MESSAGES: Final = {
    "ready": "protocol pid python max_frame_bytes features confinement",
    "output": "stream data execution_id late captured_stdout captured_stderr",
    "display": "data execution_id metadata display_id update",
    "input": "input_id execution_id prompt password",
    "call": "call_id execution_id capability args kwargs",
    "result": "execution_id mode value repr type_name duration truncated captured",
    "error": (
        "kind exception message execution_id notes frames traceback cause members suggestion mode duration"
        " truncated captured"
    ),
    "checkpointed": "checkpoint_id data blobs unsaved duration needs",
    "restored": "checkpoint_id names unsaved duration",
    "completions": "request_id matches kinds cursor_start cursor_end",
    "inspection": "request_id found name type_name signature doc source repr variables",
    "pong": "nonce rss cpu_time queue current_execution",
    "stats": "metrics request_id",
}
"""The fields of each message of protocol 1, by its tag."""
_PARTS: Final = {"Unsaved": "name type_name reason", "Variable": "name type_name repr size"}
"""The fields of parts that have got others since."""
_WITH_PARTS: Final = {"checkpointed": "unsaved", "inspection": "variables", "restored": "unsaved"}
"""The fields that hold a list of such parts, by the tag of their message."""


def as_first_protocol(message: FromWorker) -> FromWorker | None:
    """Return a message as protocol 1 has it; None if that has no such message."""
    tag = str(message.__struct_config__.tag)
    if tag not in _MESSAGES or (isinstance(message, Display) and message.clear):
        return None
    changes = dict(_new_fields(type(message), _MESSAGES[tag]))
    if tag in _WITH_PARTS:
        parts: list[msgspec.Struct] = getattr(message, _WITH_PARTS[tag])
        changes[_WITH_PARTS[tag]] = [
            msgspec.structs.replace(part, **_new_fields(type(part), _PARTS[type(part).__name__]))
            for part in parts
        ]
    return msgspec.structs.replace(message, **changes)


@cache
def _new_fields(kind: type[msgspec.Struct], known: str) -> dict[str, Any]:
    """Return the fields of a struct that are not known, with their defaults, which are shared."""
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in known.split():
            made = field.default_factory
            defaults[field.name] = field.default if made is msgspec.NODEFAULT else made()
    return defaults
