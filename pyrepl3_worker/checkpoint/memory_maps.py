"""Makes mapped memory again: `mmap` objects, of files and of memory alone, and arrays in others' memory.

A mapped file is mapped again from its path, in the same access, and is neither made nor made longer. What a
private mapping has changed is in the checkpoint, since no file has it, and so is all of one without a file.
"""

import ctypes
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, cast

from pyrepl3_worker.checkpoint.by_value import ReduceValue
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable
from pyrepl3_worker.rendering.static_lookup import module_name

if TYPE_CHECKING:
    from mmap import mmap

_LOOK: Final = re.compile(r"access=(\w+), length=(\d+), pos=(\d+), offset=(\d+)>$")
_PAGE: Final = 4096
_DELETED: Final = " (deleted)"
_ANONYMOUS_SHARED: Final = "/dev/zero (deleted)"
_NOT_ANONYMOUS: Final = ("/memfd:", "/SYSV")


def reduce_mmap(mapped: "mmap") -> ReduceValue:
    """Return the reduce value of mapped memory.

    Raises:
        Unsaveable: its file has no path any more.
    """
    if mapped.closed:
        return make_closed_mmap, ()
    found = _LOOK.search(repr(mapped))
    if found is None:
        raise Unsaveable("mapped memory of this kind can't be described")
    access, length, place, offset = found[1], *map(int, found.groups()[1:])
    rights, path = _find_mapping(_address(mapped))
    options = access, rights, length, place
    if not path or path == _ANONYMOUS_SHARED:
        return make_anonymous_mmap, (*options, mapped[:])
    if path.endswith(_DELETED) or path.startswith(_NOT_ANONYMOUS) or not os.path.exists(path):
        raise Unsaveable("the file that is mapped has no path any more")
    changes = _changes(mapped, path, offset) if "p" in rights else []
    return make_file_mmap, (path, *options, offset, _follows_file(mapped), changes)


class _Buffer(ctypes.Structure):
    """The beginning of a `Py_buffer`, with room for the rest."""

    _fields_ = (("buf", ctypes.c_void_p), ("rest", ctypes.c_byte * 256))


def _address(mapped: "mmap") -> int:
    buffer = _Buffer()
    interpreter = ctypes.pythonapi
    interpreter.PyObject_GetBuffer(ctypes.py_object(mapped), ctypes.byref(buffer), 0)
    address: int = buffer.buf
    interpreter.PyBuffer_Release(ctypes.byref(buffer))
    return address


def _find_mapping(address: int) -> tuple[str, str]:
    """Return the rights of the mapping at an address, as `rw-s`, and its file as proc(5) has it."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            span, rights, _, _, _, *path = line.rstrip("\n").split(None, 5)
            start, end = (int(each, 16) for each in span.split("-"))
            if start <= address < end:
                return rights, "" if not path or path[0].startswith("[") else path[0]
    raise Unsaveable("the memory is not mapped any more")


def _follows_file(mapped: "mmap") -> bool:
    try:
        mapped.size()
    except (OSError, ValueError):
        return False  # it was made with trackfd=False
    return True


def _changes(mapped: "mmap", path: str, offset: int) -> list[tuple[int, bytes]]:
    """Return the pages of a private mapping that are not as in its file, with their places."""
    changed: list[tuple[int, bytes]] = []
    with open(path, "rb") as file:
        file.seek(offset)
        for start in range(0, len(mapped), _PAGE):
            page = mapped[start : start + _PAGE]
            if file.read(_PAGE)[: len(page)] != page:
                changed.append((start, page))
    return changed


def _options(access: str, rights: str) -> dict[str, Any]:
    """Return what `mmap.mmap` is given to make a mapping of this access, or of these rights."""
    import mmap

    if access != "ACCESS_DEFAULT":
        return {"access": getattr(mmap, access)}
    given = zip(rights, (mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC), strict=False)
    return {
        "flags": mmap.MAP_SHARED if "s" in rights else mmap.MAP_PRIVATE,
        "prot": sum(flag for letter, flag in given if letter != "-"),
    }


def make_anonymous_mmap(access: str, rights: str, length: int, place: int, content: bytes) -> "mmap":
    """Map memory without a file, with `content`."""
    import mmap

    options = _options(access, rights)
    if "flags" in options:
        options["flags"] |= mmap.MAP_ANONYMOUS
    mapped = mmap.mmap(-1, length, **options)
    if content.strip(b"\0"):
        mapped[:] = content
    mapped.seek(place)
    return mapped


def make_file_mmap(
    path: str,
    access: str,
    rights: str,
    length: int,
    place: int,
    offset: int,
    follows_file: bool,  # noqa: FBT001
    changes: list[tuple[int, bytes]],
) -> "mmap":
    """Map a file again.

    Raises:
        OSError: it is not there, or shorter than what was mapped.
    """
    import mmap

    options = _options(access, rights)
    if not follows_file and sys.version_info >= (3, 13):
        options["trackfd"] = False
    fd = os.open(path, os.O_CLOEXEC | (os.O_RDWR if "w" in rights and "s" in rights else os.O_RDONLY))
    try:
        size = os.fstat(fd).st_size
        if size < offset + length:
            raise OSError(f"{path!r} has {size:,} bytes now, and was mapped up to byte {offset + length:,}")
        mapped = mmap.mmap(fd, length, offset=offset, **options)
    finally:
        os.close(fd)
    for start, page in changes:
        mapped[start : start + len(page)] = page
    mapped.seek(place)
    return mapped


def make_closed_mmap() -> "mmap":
    """Make mapped memory that is closed."""
    import mmap

    mapped = mmap.mmap(-1, 1, flags=mmap.MAP_PRIVATE)
    mapped.close()
    return mapped


# --- arrays in it -----------------------------------------------------------------------------------------

_MEMORY: Final = frozenset({"builtins.bytearray", "array.array", "mmap.mmap", "numpy.memmap"})
"""Kinds that lend their memory, which changes, to arrays."""


def lender_of(array: Any) -> Any:
    """Return the object, no plain array, in whose memory a NumPy array lies; None if there is none such."""
    base: Any = array.base
    while base is not None:
        if type(base) is memoryview:
            base = base.obj
        kind = cast("type[Any]", type(base))
        if f"{module_name(kind)}.{kind.__qualname__}" in _MEMORY:
            return base
        base = getattr(base, "base", None) if isinstance(base, sys.modules["numpy"].ndarray) else None
    return None


def reduce_lent_array(array: Any, lender: Any) -> ReduceValue:
    """Return the reduce value of an array as its place in the memory of another object."""
    start = sys.modules["numpy"].frombuffer(lender, "u1").__array_interface__["data"][0]
    place = array.__array_interface__["data"][0] - start
    if getattr(array, "__dict__", None):
        raise Unsaveable(
            "an array of a class with attributes is not made again in the memory of another object"
        )
    layout = array.dtype, array.shape, array.strides, bool(array.flags.writeable)
    return make_lent_array, (type(array), lender, place, *layout)


def make_lent_array(
    kind: Any,
    lender: Any,
    place: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,  # noqa: FBT001
) -> Any:
    """Make an array in the memory of `lender`; `place` is in bytes."""
    array = sys.modules["numpy"].ndarray.__new__(kind, shape, dtype, lender, place, strides)
    if not writeable:
        array.flags.writeable = False
    return array
