"""Hypothesis strategies for messages, derived from the structs, and a second, naive frame decoder."""

import types
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema
import msgspec
from hypothesis import strategies as st

from pyrepl3_schemas.codec import ClientDecoder, WorkerDecoder, encode_value
from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.messages import FromWorker, Message, ToWorker
from schemas.tools.json_form import message_types

MESSAGE_TYPES: list[type[Message]] = [
    cls for to_worker in (True, False) for cls in message_types(to_worker=to_worker).values()
]

_integers = st.integers(-(2**63), 2**64 - 1)
_floats = st.floats(allow_nan=False)
_scalars = st.none() | st.booleans() | _integers | _floats | st.text() | st.binary()

plain_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | _integers, inner, max_size=4)
    ),
    max_leaves=12,
)
"""What MessagePack decodes to, as far as `==` can compare it."""

_module_names = st.from_regex(r"[a-z_]{1,4}(\.[a-z]{1,4})?", fullmatch=True)
configs = st.builds(
    ExecutorConfig,
    max_execution_time=st.none() | st.floats(0.001, 1e9),
    max_memory_usage=st.none() | st.integers(1, 2**62),
    max_coroutines=st.integers(1, 2**32 - 1),
    max_output_bytes=st.none() | st.integers(1, 2**62),
    max_display_bytes=st.none() | st.integers(1, 2**62),
    max_repr_chars=st.integers(64, 2**32 - 1),
    max_frame_bytes=st.integers(4096, 2**32 - 1),
    cache_size=st.integers(0, 2**32 - 1),
    allow_imports=st.booleans(),
    allowed_modules=st.none() | st.frozensets(_module_names, max_size=4),
    denied_modules=st.frozensets(_module_names, max_size=4),
    auto_fix=st.booleans(),
    syntax=st.sampled_from(["python", "ipython"]),
)


def of_type(kind: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return a strategy for a field's type. A kind of type that it does not know is an error."""
    kind = getattr(kind, "__value__", kind)  # a `type X = ...`
    origin, arguments = get_origin(kind), get_args(kind)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=20),
        int: _integers,
        float: _floats,
        bool: st.booleans(),
        bytes: st.binary(max_size=20),
        memoryview: st.binary(max_size=20).map(memoryview),
        type(None): st.none(),
        msgspec.Raw: plain_values.map(encode_value),
        msgspec.UnsetType: st.just(msgspec.UNSET),
        ExecutorConfig: configs,
    }
    if kind in simple:
        return simple[kind]
    if origin is Annotated:
        (limits,) = kind.__metadata__
        if arguments[0] is str:
            return st.text(max_size=min(limits.max_length, 20))
        if arguments[0] is int:
            return st.integers(limits.ge, 2**64 - 1 if limits.le is None else limits.le)
        assert arguments[0] is float, kind
        return st.floats(
            limits.gt if limits.ge is None else limits.ge, limits.le, exclude_min=limits.ge is None
        )
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([of_type(argument, depth) for argument in arguments])
    if origin is list:
        # Exceptions hold exceptions; two levels of them are enough to see every shape.
        return st.lists(of_type(arguments[0], depth + 1), max_size=2) if depth < 3 else st.just([])
    if origin is dict:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1], depth + 1), max_size=3)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return of_struct(kind, depth) if depth < 4 else st.nothing()
    raise TypeError(f"no strategy for {kind!r}")


def of_struct[S: msgspec.Struct](cls: type[S], depth: int = 0) -> st.SearchStrategy[S]:
    """Return a strategy for a struct: every field that has a default is there or not."""
    hints = get_type_hints(cls)
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        (required if field.required else optional)[field.name] = of_type(hints[field.name], depth + 1)
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: cls(**fields))


to_worker = st.one_of([of_struct(cls) for cls in message_types(to_worker=True).values()])
from_worker = st.one_of([of_struct(cls) for cls in message_types(to_worker=False).values()])


def decoder_of(cls: type[Message], max_frame_bytes: int = 2**26) -> WorkerDecoder | ClientDecoder:
    """Return a decoder of the direction in which a message goes."""
    if cls in ToWorker.__value__.__args__:
        return WorkerDecoder(max_frame_bytes)
    assert cls in FromWorker.__value__.__args__
    return ClientDecoder(max_frame_bytes)


def validate(form: Any, schema: dict[str, Any]) -> None:
    """Validate JSON data by a JSON Schema; raises jsonschema's ValidationError."""
    validator: Any = jsonschema.Draft202012Validator(schema)
    validator.validate(form)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at the given places (taken modulo the length), empty pieces included."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def naive_frames(data: bytes, max_frame_bytes: int) -> tuple[list[bytes], int | None, bytes]:
    """Decode a whole stream as the contract words it.

    Returns the bodies, the offset of a bad length (None when there is none), and the unfinished rest.
    """
    bodies: list[bytes] = []
    offset = 0
    while offset + 4 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "big")
        if size == 0 or size > max_frame_bytes:
            return bodies, offset, b""
        if offset + 4 + size > len(data):
            break
        bodies.append(data[offset + 4 : offset + 4 + size])
        offset += 4 + size
    return bodies, None, data[offset:]
