"""Tells what of a checkpoint another version of Python can load.

Bytecode belongs to one version: loading another's may crash the interpreter. So do attributes that the
standard library has chosen for its own objects: a `queue.Queue` of Python 3.12 lacks one that 3.13 looks at.
Plain data, arrays, and instances of libraries' classes are the same everywhere.
"""

import copyreg
import sys
from types import FunctionType
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.makers import find_maker, reduce_loop_bound
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, class_dict, find_in_mro, module_name

_CARRY_CODE: Final = frozenset({"cloudpickle", "dill", "joblib", "numba"})
"""Libraries whose pickles hold bytecode."""
_SAME_EVERYWHERE: Final = frozenset(
    {
        "argparse.Namespace", "collections.ChainMap", "collections.UserDict", "collections.UserList",
        "collections.UserString", "string.Template",
    }
)  # fmt: skip
"""Classes of the standard library whose attributes are what they always were."""
MOVED_MODULES: Final = {"pathlib._local": "pathlib"}
"""Where some versions have classes, and where all find them."""


class IsPortable(dict[type, bool]):
    """Whether another version of Python can load what was saved of a type's instances, by their types.

    Functions are not told here: most are saved by their names.
    """

    def __missing__(self, kind: type) -> bool:
        """Find it out once."""
        self[kind] = found = _is_portable(kind)
        return found


def _is_portable(kind: type[Any]) -> bool:
    if module_name(kind).partition(".")[0] in _CARRY_CODE:
        return False
    maker = find_maker(kind)
    if maker is not None:
        return maker is not reduce_loop_bound
    if kind in copyreg.dispatch_table or issubclass(kind, type | FunctionType):
        return True
    says_how = ("__reduce_ex__", "__reduce__", "__getstate__")
    if any(find_in_mro(kind, name) is not find_in_mro(object, name) for name in says_how):
        return True
    if find_in_mro(kind, "__setstate__") is not UNKNOWN:
        return True
    bases = cast("tuple[type[object], ...]", kind.__mro__)
    return not any(map(_sets_attributes, bases))


def _sets_attributes(base: type) -> bool:
    """Return whether a class of the standard library sets attributes of its instances."""
    if module_name(base).partition(".")[0] not in sys.stdlib_module_names:
        return False
    is_tuple = cast(type, tuple) in base.__mro__
    if is_tuple or f"{module_name(base)}.{base.__qualname__}" in _SAME_EVERYWHERE:
        return False
    return any(type(class_dict(base).get(name)) is FunctionType for name in ("__init__", "__new__"))
