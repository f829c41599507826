"""What the types of values become on their way to plain data, a step at a time, and why some become nothing.

Nothing is imported for it: a type whose module is not loaded has no values.
"""

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import msgspec
from msgspec.msgpack import Ext

from pyrepl3_schemas.extensions import (
    DATE,
    DATETIME,
    DECIMAL,
    TIME,
    TIMEDELTA,
    UUID,
    time_text,
    timedelta_text,
)

TOO_LARGE: Final = "is larger than max_frame_bytes allows"
NO_SHORT_FORM: Final = "has no short form"
"""Why an array is not opened: in a transfer of its own it is sent as what it is."""
MAX_ARRAY_ELEMENTS: Final = 10_000
"""Elements of a NumPy array that still has a form."""
_MAX_RANGE: Final = 64 * 1024 * 1024
"""Numbers of a range that become a list."""
_MAX_STEPS: Final = 12
"""Steps of the path to a value without a form that are named."""

_GONE: Final = object()

type Opener = Callable[[Any, int], Any]
"""Returns what a value is as simpler data; takes the bytes that there is room for."""

WHOLE: Final = "it"
"""The outermost value, in an error's text."""


class NoPlainForm(Exception):  # noqa: N818 - it says what is the case, and no more
    """A value has no form as plain data. `reason` says why, and where inside the value."""

    def __init__(self, what: str, why: str) -> None:
        """Say of `what`, a value in words, why it has no form."""
        super().__init__(what, why)
        self._what = what
        self._why = why
        self.steps: list[str] = []
        """How to come to it from the outermost value, the last step first."""

    @property
    def too_large(self) -> bool:
        """Whether it has a form that does not fit."""
        return self._what == WHOLE

    @property
    def reason(self) -> str:
        """The reason in words."""
        steps = self.steps[::-1] if self._what != WHOLE else []
        shown = "".join(steps[:_MAX_STEPS]) + ("…" if len(steps) > _MAX_STEPS else "")
        return f"{self._what} at {shown} {self._why}" if shown else f"{self._what} {self._why}"


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module's where that is no builtin one."""
    module, name = class_place(type(value))
    return name if module in ("", "builtins", "__main__") else f"{module}.{name}"


def class_place(kind: type) -> tuple[str, str]:
    """Return the names of a class's module and of the class; empty where it says none.

    Not by attribute: a metaclass of the code's own may answer for it.
    """
    try:
        module = type.__dict__["__module__"].__get__(kind)
    except AttributeError:
        module = ""
    return module if type(module) is str else "", type.__dict__["__qualname__"].__get__(kind)


def _to_list(value: Any, _room: int) -> list[Any]:
    return list(value)


def _items_of(base: Any) -> Opener:
    """Return what opens a subclass of a container: by what it holds, not by what its own code says."""
    return lambda value, _room: list(base.__iter__(value))


def _pairs_of(base: Any) -> Opener:
    return lambda value, _room: dict(base.items(value))


def _range_to_list(value: range, room: int) -> list[int]:
    # `len` fails above 2^63. A list takes some forty times as much as what is sent.
    count = value.index(value[-1]) + 1 if value else 0
    if count > room:
        raise NoPlainForm(WHOLE, TOO_LARGE)
    if count > _MAX_RANGE:
        raise NoPlainForm("range", f"of {count:,} numbers is too long to become a list")
    return list(value)


def _to_dict(value: Any, _room: int) -> dict[Any, Any]:
    return dict(value.items())


def _to_bytes(value: Any, room: int) -> bytes:
    size: int = value.nbytes if type(value) is memoryview else len(value)
    if size > room:
        raise NoPlainForm(WHOLE, TOO_LARGE)
    return bytes(value)


def _to_number(value: Any, _room: int) -> int | float:
    return float.__float__(value) if issubclass(type(value), float) else int.__index__(value)


def _complex_to_list(value: complex, _room: int) -> list[float]:
    return [float(value.real), float(value.imag)]


def _to_str(value: Any, _room: int) -> str:
    return str.__str__(value) if issubclass(type(value), str) else str(value)


def _enum_to_value(value: Any, _room: int) -> Any:
    return value.value


def _dataclass_to_dict(value: Any, _room: int) -> dict[str, Any]:
    # As `dataclasses.fields` has them, whose module is not loaded for this.
    fields: dict[str, Any] = cast("Any", type(value)).__dataclass_fields__
    names = (name for name, field in fields.items() if field._field_type.name == "_FIELD")  # noqa: SLF001
    return {name: member for name in names if (member := getattr(value, name, _GONE)) is not _GONE}


def _attrs_to_dict(value: Any, _room: int) -> dict[str, Any]:
    fields: tuple[Any, ...] = cast("Any", type(value)).__attrs_attrs__
    return {field.name: getattr(value, field.name) for field in fields}


def _struct_to_dict(value: msgspec.Struct, _room: int) -> dict[str, Any] | list[Any]:
    config = value.__struct_config__
    of_code = getattr(sys.modules.get("msgspec"), "UNSET", None)
    fields = {
        shown: member
        for name, shown in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        if (member := getattr(value, name)) is not msgspec.UNSET
        and (member is not of_code or of_code is None)
    }
    if config.tag is not None:
        fields = {cast("str", config.tag_field): config.tag, **fields}
    return list(fields.values()) if config.array_like else fields


def model_to_dict(value: Any, _room: int) -> Any:
    """Open a model of pydantic's. That has no bound, so its fields are to be looked at before."""
    return value.model_dump()


def _to_extension(code: int, text: Callable[[Any], str]) -> Opener:
    def extend(value: Any, _room: int) -> Ext:
        return Ext(code, text(value).encode())

    return extend


def _from_timestamp(value: Any, _room: int) -> Any:
    if value.nanosecond:
        raise NoPlainForm(type_name(value), "has nanoseconds, for which datetime has no room")
    return value.to_pydatetime()


def _from_pandas_timedelta(value: Any, _room: int) -> Any:
    if value.nanoseconds:
        raise NoPlainForm(type_name(value), "has nanoseconds, for which timedelta has no room")
    return value.to_pytimedelta()


def _missing_to_none(_value: Any, _room: int) -> None:
    return None


def _from_scalar(value: Any, _room: int) -> Any:
    """Open a scalar of NumPy's."""
    if value.dtype.kind in "mM":
        if sys.modules["numpy"].isnat(value):
            return None
        exact = value.astype(f"{value.dtype.kind}8[us]")
        if exact != value:
            raise NoPlainForm(type_name(value), "has nanoseconds, for which datetime has no room")
        plain = exact.item()
    else:
        plain = value.item()
    if type(plain).__module__ == "numpy" or (value.dtype.kind in "mM" and type(plain) is int):
        raise NoPlainForm(type_name(value), "has no equal in Python")
    return plain


def _from_array(value: Any, _room: int) -> Any:
    """Open an array of NumPy's, by one dimension where its scalars are more than `tolist` would give."""
    if value.size > MAX_ARRAY_ELEMENTS:
        raise NoPlainForm(f"{type_name(value)} of {value.nbytes:,} bytes", NO_SHORT_FORM)
    if value.ndim == 0:
        return value[()]
    return list(value) if value.dtype.kind in "mMV" or value.dtype.char in "gG" else value.tolist()


_OPENERS: Final[dict[type, Opener]] = {
    set: _to_list,
    frozenset: _to_list,
    deque: _to_list,
    range: _range_to_list,
    MappingProxyType: _to_dict,
    memoryview: _to_bytes,
    complex: _complex_to_list,
}

# By module, so that nothing is imported that the value's own code has not imported. The first one counts.
_BY_CLASS: Final[tuple[tuple[str, str, Opener], ...]] = (
    ("enum", "Enum", _enum_to_value),
    ("pandas", "Timestamp", _from_timestamp),
    ("pandas", "Timedelta", _from_pandas_timedelta),
    ("numpy", "generic", _from_scalar),
    ("numpy", "ndarray", _from_array),
    ("datetime", "datetime", _to_extension(DATETIME, time_text)),
    ("datetime", "date", _to_extension(DATE, lambda value: value.isoformat())),
    ("datetime", "time", _to_extension(TIME, time_text)),
    ("datetime", "timedelta", _to_extension(TIMEDELTA, timedelta_text)),
    ("decimal", "Decimal", _to_extension(DECIMAL, str)),
    ("uuid", "UUID", _to_extension(UUID, str)),
    ("fractions", "Fraction", _to_str),
    ("pathlib", "PurePath", _to_str),
    ("array", "array", _to_list),
    ("pydantic", "BaseModel", model_to_dict),
    ("msgspec", "Struct", _struct_to_dict),  # the code's own, where a worker's is another one
)
_BY_BASE: Final[tuple[tuple[type, Opener], ...]] = (
    (str, _to_str),
    (int, _to_number),
    (float, _to_number),
    (complex, _complex_to_list),
    (bytes, _to_bytes),
    (bytearray, _to_bytes),
    (msgspec.Struct, _struct_to_dict),
    (OrderedDict, _pairs_of(OrderedDict)),
    (dict, _pairs_of(dict)),
    *((base, _items_of(base)) for base in (list, tuple, set, frozenset, deque)),
)


def opener_of(kind: type, value: object) -> Opener:
    """Return what opens values of a type that is not one of the plain ones.

    Raises:
        NoPlainForm: nothing does.
    """
    found = _OPENERS.get(kind)
    if found is not None:
        return found
    bases = type.__dict__["__mro__"].__get__(kind)
    module, name = class_place(kind)
    if name in ("NaTType", "NAType") and module.startswith("pandas."):
        return _missing_to_none
    for module_name, class_name, opener in _BY_CLASS:
        library = sys.modules.get(module_name)
        if library is not None and getattr(library, class_name, None) in bases:
            return opener
    for base, opener in _BY_BASE:
        if base in bases:
            return opener
    for base in bases:
        own = type.__dict__["__dict__"].__get__(base)
        if "__dataclass_fields__" in own:
            return _dataclass_to_dict
        if "__attrs_attrs__" in own:
            return _attrs_to_dict
    if issubclass(kind, Mapping):
        return _to_dict
    how = ""
    if any("__await__" in type.__dict__["__dict__"].__get__(base) for base in bases):
        how = ": `await` gives its value"
    raise NoPlainForm(type_name(value), f"has no form as plain data{how}")
