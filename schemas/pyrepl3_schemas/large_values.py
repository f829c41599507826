"""Values of any size as bodies of requests: plain data by one table, and arrays and tables beside it.

An array of NumPy's arrives as an array of the same type, shape and order, its bytes unchanged; a table of
pyarrow's as one, by Arrow's IPC format. Extension 87 stands in the data for an array, 88 for a table; their
payloads are JSON. Nothing is imported because a payload asks for it, unless the reader trusts its sender.
"""

import binascii
import json
import math
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final, cast

import msgspec
from msgspec.msgpack import Ext

from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError, ValueTooLarge
from pyrepl3_schemas.extensions import read_extension
from pyrepl3_schemas.object_limit import max_objects
from pyrepl3_schemas.plain_types import NoPlainForm, class_place, type_name
from pyrepl3_schemas.transfer import Body, Part, part_size
from pyrepl3_schemas.values import encode_plain

ARRAY: Final = 87
TABLE: Final = 88
MAX_VALUE_BYTES: Final = 2**40
"""More than anything takes."""
_INLINE_BYTES: Final = 16 * 1024
"""An array of at most so many bytes stands in its extension, in base64."""
_MAX_OBJECTS: Final = max_objects(2**30)
"""Arrays, maps and texts that a value of any size may hold."""
_DTYPE: Final = re.compile(r"[<>|=][biufcmMSUV]\d{1,9}(\[\d{0,9}[a-zA-Z]{1,7}\])?", re.ASCII)
_MAX_DTYPE_DEPTH: Final = 16


class UnknownHere(RemoteProtocolError):  # noqa: N818 - no fault of the value's
    """A value is of a library that is not there."""


# --- out ---------------------------------------------------------------------------------------------


def encode_body(value: object, *, frames: bool = False) -> Body:
    """Return a value of any size as a body.

    Args:
        value: the data. Its arrays are not copied, and must not change until they are sent.
        frames: whether to take data frames (of pandas, polars) as tables; else they have no form.

    Raises:
        LocalProtocolError: something in it has no form; `reason` says what and where.
        MemoryError: there is not enough memory.
    """
    parts = _Parts(frames=frames)
    try:
        data = encode_plain(value, MAX_VALUE_BYTES, _MAX_OBJECTS, parts)
    except NoPlainForm as error:
        raise (ValueTooLarge if error.too_large else LocalProtocolError)(error.reason) from None
    except (MemoryError, LocalProtocolError):
        raise
    except RecursionError:
        raise LocalProtocolError("it nests too deep") from None
    except Exception as error:
        # The value's own code (a mapping's, a property's) may run here and raise anything.
        raise LocalProtocolError(f"{type_name(value)} cannot be read: {error}") from error
    return Body(msgspec.Raw(data), tuple(parts.parts))


class _Parts:
    """The buffers of one value."""

    def __init__(self, *, frames: bool) -> None:
        self.parts: list[Part] = []
        self._frames = frames

    def take(self, value: Any) -> Ext | None:
        kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType] - of anything
        numpy = sys.modules.get("numpy")
        if numpy is not None and kind in (numpy.ndarray, numpy.memmap):
            return self._take_array(numpy, value)
        module, name = class_place(kind)
        module = module.partition(".")[0]
        if module == "pyarrow" and name in ("Table", "RecordBatch"):
            return self._take_table(value)
        if name == "DataFrame" and module in ("pandas", "polars"):
            return self._take_frame(module, value)
        return None

    def _take_array(self, numpy: Any, array: Any) -> Ext | None:
        descr = _describe(numpy, array.dtype)
        if descr is None:
            return None
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        form = {"dtype": descr, "shape": array.shape, "order": order}
        whole = array.T if order == "F" else numpy.ascontiguousarray(array)
        data = memoryview(b"")
        if array.nbytes:
            data = memoryview(whole.view(numpy.ndarray).reshape(-1).view(numpy.uint8))
        return self._place(ARRAY, form, (data,))

    def _take_frame(self, module: str, frame: Any) -> Ext:
        if not self._frames:
            how = "pyarrow.Table.from_pandas(…)" if module == "pandas" else ".to_arrow()"
            or_get = "get(name, arrow=True)"
            raise NoPlainForm(type_name(frame), f"travels as a table of pyarrow's alone: {how}, or {or_get}")
        if module == "polars":
            if any("Object" in str(dtype) for dtype in frame.dtypes):
                # They would be addresses in its memory.
                raise NoPlainForm(type_name(frame), "has columns of Python's objects, which no table holds")
            return self._take_table(frame.to_arrow())
        return self._take_table(_pyarrow().Table.from_pandas(frame))

    def _take_table(self, table: Any) -> Ext:
        pyarrow = _pyarrow()
        batch = type(table).__name__ == "RecordBatch"
        sink = _Sink()
        with pyarrow.ipc.new_stream(pyarrow.PythonFile(sink, "w"), table.schema) as writer:
            (writer.write_batch if batch else writer.write_table)(table)
        return self._place(TABLE, {"kind": "batch" if batch else "table"}, tuple(sink.written))

    def _place(self, code: int, form: dict[str, Any], part: Part) -> Ext:
        if part_size(part) <= _INLINE_BYTES:
            form["data"] = binascii.b2a_base64(b"".join(part), newline=False).decode()
        else:
            form["part"] = len(self.parts)
            self.parts.append(part)
        return Ext(code, json.dumps(form, ensure_ascii=False).encode())


class _Sink:
    """A file that keeps what is written to it: a table's own buffers, which are not copied."""

    closed = False

    def __init__(self) -> None:
        self.written: list[memoryview] = []

    def write(self, data: Any) -> int:
        buffer = memoryview(data).cast("B")
        if buffer.nbytes:
            self.written.append(buffer)
        return buffer.nbytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _pyarrow() -> Any:
    try:
        # When the first table comes.
        pyarrow = import_module("pyarrow")
        import_module("pyarrow.ipc")
    except ImportError as error:
        raise LocalProtocolError(f"tables need pyarrow, which cannot be imported there: {error}") from None
    return pyarrow


def _describe(numpy: Any, dtype: Any) -> Any:
    """Return an array's type as data; None for one that is more than its bytes."""
    if dtype.hasobject:
        return None
    descr = numpy.lib.format.dtype_to_descr(dtype)
    try:
        same = _checked(descr) and _make_dtype(numpy, descr) == dtype
    except (TypeError, ValueError):
        return None
    return descr if same else None


# --- in ----------------------------------------------------------------------------------------------


def decode_body(body: Body, *, trusted: bool) -> Any:
    """Return the value of a body.

    Args:
        body: what was received; arrays keep its parts.
        trusted: whether NumPy and pyarrow may be imported for it, and tables need no check.

    Raises:
        UnknownHere: it holds an array or a table, and the library is not there.
        RemoteProtocolError: it is not what it should be.
    """
    if not isinstance(body.value, msgspec.Raw):
        raise RemoteProtocolError("a body has no value")
    decoder = msgspec.msgpack.Decoder[Any](Any, ext_hook=_Reader(body.parts, trusted=trusted).read)
    try:
        return decoder.decode(body.value)
    except (RemoteProtocolError, MemoryError):
        raise
    except Exception as error:  # an extension may hold anything
        raise RemoteProtocolError(f"a value does not decode: {error!r}") from error


class _Reader:
    """Reads the extensions of one body."""

    def __init__(self, parts: tuple[Part, ...], *, trusted: bool) -> None:
        self._parts = parts
        self._trusted = trusted
        self._made: dict[int, Any] = {}
        """By part: what is met twice is one object."""

    def read(self, code: int, data: memoryview) -> Any:
        if code not in (ARRAY, TABLE):
            return read_extension(code, data)
        form = json.loads(bytes(data))
        part = form.get("part")
        if part is not None and part in self._made:
            return self._made[part]
        if part is None:
            buffer = memoryview(bytearray(binascii.a2b_base64(form["data"], strict_mode=True)))
        elif type(part) is int and 0 <= part < len(self._parts):
            (buffer,) = self._parts[part]
        else:
            raise RemoteProtocolError(f"a value refers to part {part!r}, of {len(self._parts)}")
        value = self._array(form, buffer) if code == ARRAY else self._table(form, buffer)
        if part is not None:
            self._made[part] = value
        return value

    def _array(self, form: dict[str, Any], buffer: memoryview) -> Any:
        numpy = self._library(
            "numpy", "an array of NumPy's", "or get it as a list, by .tolist() in the session"
        )
        descr, shape, order = form["dtype"], form["shape"], form["order"]
        if not _checked(descr) or order not in ("C", "F"):
            raise RemoteProtocolError(f"a value holds an array of type {descr!r}"[:200])
        if not all(type(length) is int and length >= 0 for length in shape):
            raise RemoteProtocolError(f"a value holds an array of shape {shape!r}"[:200])
        dtype = _make_dtype(numpy, descr)
        size = math.prod(shape) * dtype.itemsize
        if size != buffer.nbytes:
            raise RemoteProtocolError(f"a value holds an array of {size} bytes in {buffer.nbytes} bytes")
        return numpy.ndarray(tuple(shape), dtype, buffer if size else None, order=order)

    def _table(self, form: dict[str, Any], buffer: memoryview) -> Any:
        pyarrow = self._library("pyarrow", "a table of pyarrow's", "or get it without arrow=True")
        try:
            with pyarrow.ipc.open_stream(pyarrow.py_buffer(buffer)) as reader:
                table = reader.read_next_batch() if form.get("kind") == "batch" else reader.read_all()
            if not self._trusted:
                table.validate(full=True)
        except (pyarrow.ArrowException, OSError, StopIteration) as error:
            raise RemoteProtocolError(f"a value holds a table that is broken: {error}") from None
        return table

    def _library(self, name: str, what: str, instead: str) -> Any:
        module: Any = sys.modules.get(name)
        if module is None and not (self._trusted or name == "pyarrow"):
            raise UnknownHere(f"it holds {what}: import {name} in this program first, {instead}")
        try:
            return _pyarrow() if name == "pyarrow" else import_module(name)
        except (ImportError, LocalProtocolError):
            raise UnknownHere(f"it holds {what}, and {name} cannot be imported there") from None


def _checked(descr: Any, depth: int = 0) -> bool:
    """Return whether a type's description has plain types alone: numbers, times, texts and bytes."""
    if isinstance(descr, str):
        return _DTYPE.fullmatch(descr) is not None
    if isinstance(descr, tuple | list) and depth < _MAX_DTYPE_DEPTH:
        fields = cast("list[Any]", descr)
        return all(
            isinstance(field, tuple | list)
            and 2 <= len(cast("list[Any]", field)) <= 3
            and _is_name(field[0])
            and _checked(field[1], depth + 1)
            and (len(cast("list[Any]", field)) == 2 or _is_shape(field[2]))
            for field in fields
        )
    return False


def _is_name(name: Any) -> bool:
    return isinstance(name, str) or (
        isinstance(name, tuple | list) and all(isinstance(part, str) for part in cast("list[Any]", name))
    )


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple | list) and all(
        type(length) is int and length >= 0 for length in cast("Iterable[Any]", shape)
    )


def _make_dtype(numpy: Any, descr: Any) -> Any:
    """Make a type of its description, in which a reader may have lists for tuples."""
    return numpy.lib.format.descr_to_dtype(_as_fields(descr))


def _as_fields(descr: Any) -> Any:
    if isinstance(descr, str):
        return descr
    return [
        (
            tuple(field[0]) if isinstance(field[0], list) else field[0],
            _as_fields(field[1]),
            *(tuple(shape) for shape in field[2:]),
        )
        for field in descr
    ]
