"""How to pickle objects that plain pickle cannot save, or would restore as something else.

Caches, type variables and properties of the standard library; lists and dicts with item methods of their
own; NumPy arrays that are views of others.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, NewType, ParamSpec, TypeVar, TypeVarTuple, cast

from pyrepl3_worker.checkpoint.by_value import ReduceValue
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, class_dict, find_in_mro


def reduce_lru_cache(value: Any) -> ReduceValue:
    """Return the reduce value of a function with a cache; the cached values are not saved."""
    parameters = value.cache_parameters()
    made = (value.__wrapped__, parameters["maxsize"], parameters["typed"])
    own = dict[str, Any](value.__dict__)
    del own["__wrapped__"], own["cache_parameters"]
    return make_lru_cache, made, own


def make_lru_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:  # noqa: FBT001
    """Make a function with an empty cache, as `functools.lru_cache` does."""
    return lru_cache(maxsize, typed)(function)


def reduce_type_variable(value: TypeVar) -> ReduceValue:
    """Return the reduce value of a type variable."""
    options = {
        "bound": value.__bound__,
        "covariant": value.__covariant__,
        "contravariant": value.__contravariant__,
        "infer_variance": value.__infer_variance__,
    }
    return make_type_variable, (TypeVar, value.__module__, (value.__name__, *value.__constraints__), options)


def reduce_param_spec(value: ParamSpec | TypeVarTuple) -> ReduceValue:
    """Return the reduce value of a `ParamSpec` or a `TypeVarTuple`."""
    return make_type_variable, (type(value), value.__module__, (value.__name__,), {})


def make_type_variable(kind: Any, module: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make a type variable as if code in `module` had made it."""
    made = kind(*arguments, **options)
    made.__module__ = module
    return made


def reduce_new_type(value: Any) -> ReduceValue:
    """Return the reduce value of a `NewType`."""
    return NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


def reduce_property(value: property) -> ReduceValue:
    """Return the reduce value of a property."""
    return property, (value.fget, value.fset, value.fdel, value.__doc__)


# --- lists and dicts with item methods of their own -----------------------------------------------------


_DICT: Final = class_dict(dict)
_LIST: Final = class_dict(list)


def overrides_item_methods(kind: type) -> bool:
    """Return whether pickle would fill a list or dict by its class's own methods, which may change items."""
    if find_in_mro(kind, "__reduce_ex__") is not _object_attribute("__reduce_ex__"):
        return False
    if find_in_mro(kind, "__reduce__") is not _object_attribute("__reduce__"):
        return False
    own_item = find_in_mro(kind, "__setitem__") is not _DICT["__setitem__"]
    own_append = any(find_in_mro(kind, name) is not _LIST[name] for name in ("append", "extend"))
    return (issubclass(kind, dict) and own_item) or (issubclass(kind, list) and own_append)


def _object_attribute(name: str) -> object:
    return find_in_mro(object, name)


def reduce_container(value: Any) -> ReduceValue:
    """Return the reduce value of a list or dict of a subclass, with its items as they are."""
    make, arguments, state, *_ = object.__reduce_ex__(value, 2)
    kind = cast("type[Any]", type(value))
    items = list[Any](list[Any].__iter__(value)) if issubclass(kind, list) else None
    table = dict[Any, Any](dict[Any, Any].items(value)) if issubclass(kind, dict) else None
    return make, arguments, (state, items, table), None, None, fill_container


def fill_container(value: Any, content: tuple[Any, list[Any] | None, dict[Any, Any] | None]) -> None:
    """Put items in without the class's own methods, then set the state as pickle does."""
    state, items, table = content
    if items is not None:
        list[Any].extend(value, items)
    if table is not None:
        dict[Any, Any].update(value, table)
    setter = find_in_mro(cast("type[Any]", type(value)), "__setstate__")
    if state is None:
        return
    if setter is not UNKNOWN:
        value.__setstate__(state)
        return
    own, slots = cast("tuple[Any, Any]", state if type(state) is tuple else (state, None))
    if own:
        value.__dict__.update(own)
    for name, slot in cast("dict[str, Any]", slots or {}).items():
        setattr(value, name, slot)


# --- NumPy arrays that are views of others ----------------------------------------------------------------


def can_be_saved_as_view(view: Any, base: Any) -> bool:
    """Return whether an array lies wholly in the memory of another, which is restored with its layout."""
    if view.dtype.hasobject or base.dtype.hasobject:
        return False
    if not (base.flags.c_contiguous or base.flags.f_contiguous):
        return False
    start = _address(view) - _address(base)
    reaches = [step * (size - 1) for step, size in zip(view.strides, view.shape, strict=True)]
    first = start + sum(min(0, reach) for reach in reaches)
    last = start + sum(max(0, reach) for reach in reaches)
    return view.size > 0 and first >= 0 and last + view.itemsize <= base.nbytes


def reduce_array_view(view: Any, base: Any) -> ReduceValue:
    """Return the reduce value of an array: its place in another array's memory."""
    where = (base, _address(view) - _address(base), view.dtype, view.shape, view.strides)
    return make_array_view, (*where, view.flags.writeable)


def make_array_view(
    base: Any,
    offset: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,  # noqa: FBT001
) -> Any:
    """Make an array that is a view of the memory of `base`; `offset` is in bytes."""
    memory = base.reshape(-1, order="A").view("u1")
    made = import_module("numpy").ndarray(shape, dtype, memory, offset, strides)
    if not writeable:
        made.flags.writeable = False
    return made


def _address(array: Any) -> int:
    return array.__array_interface__["data"][0]
