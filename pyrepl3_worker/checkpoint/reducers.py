"""Objects of the standard library that pickle saves by a name which a fresh worker does not have."""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, NewType, ParamSpec, TypeVar, TypeVarTuple, cast

from pyrepl3_worker.checkpoint.by_value import Reduced
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, class_dict, in_mro


def cache_parts(value: Any) -> Reduced:
    """Give what a function with a cache consists of; the cache itself is left behind."""
    parameters = value.cache_parameters()
    made = (value.__wrapped__, parameters["maxsize"], parameters["typed"])
    own = dict[str, Any](value.__dict__)
    del own["__wrapped__"], own["cache_parameters"]
    return make_cache, made, own


def make_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:  # noqa: FBT001
    """Make a function with a cache, as `functools.lru_cache` does; the cache is empty."""
    return lru_cache(maxsize, typed)(function)


def variable_parts(value: TypeVar) -> Reduced:
    """Give what a type variable consists of."""
    options = {
        "bound": value.__bound__,
        "covariant": value.__covariant__,
        "contravariant": value.__contravariant__,
        "infer_variance": value.__infer_variance__,
    }
    return make_type_variable, (TypeVar, value.__module__, (value.__name__, *value.__constraints__), options)


def spec_parts(value: ParamSpec | TypeVarTuple) -> Reduced:
    """Give what the other two kinds of type variables consist of."""
    return make_type_variable, (type(value), value.__module__, (value.__name__,), {})


def make_type_variable(kind: Any, module: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make a type variable as if `module` had."""
    made = kind(*arguments, **options)
    made.__module__ = module
    return made


def new_type_parts(value: Any) -> Reduced:
    """Give what a `NewType` consists of."""
    return NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


def property_parts(value: property) -> Reduced:
    """Give what a property consists of."""
    return property, (value.fget, value.fset, value.fdel, value.__doc__)


# --- containers that fill themselves in their own way ---------------------------------------------------


_DICT: Final = class_dict(dict)
_LIST: Final = class_dict(list)


def overrides_filling(kind: type) -> bool:
    """Whether pickle would fill a list or dict by methods of its own, which need not put in what they get."""
    if in_mro(kind, "__reduce_ex__") is not _object("__reduce_ex__"):
        return False
    if in_mro(kind, "__reduce__") is not _object("__reduce__"):
        return False
    own_item = in_mro(kind, "__setitem__") is not _DICT["__setitem__"]
    own_append = any(in_mro(kind, name) is not _LIST[name] for name in ("append", "extend"))
    return (issubclass(kind, dict) and own_item) or (issubclass(kind, list) and own_append)


def _object(name: str) -> object:
    return in_mro(object, name)


def container_parts(value: Any) -> Reduced:
    """Give what a list or dict of a class of its own consists of, its items as they are."""
    make, arguments, state, *_ = object.__reduce_ex__(value, 2)
    kind = cast("type[Any]", type(value))
    items = list[Any](list[Any].__iter__(value)) if issubclass(kind, list) else None
    table = dict[Any, Any](dict[Any, Any].items(value)) if issubclass(kind, dict) else None
    return make, arguments, (state, items, table), None, None, fill_container


def fill_container(value: Any, content: tuple[Any, list[Any] | None, dict[Any, Any] | None]) -> None:
    """Put items in past the class's own methods, and then its state as pickle does."""
    state, items, table = content
    if items is not None:
        list[Any].extend(value, items)
    if table is not None:
        dict[Any, Any].update(value, table)
    setter = in_mro(cast("type[Any]", type(value)), "__setstate__")
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


# --- arrays that look into others -------------------------------------------------------------------------


def can_look_into(view: Any, base: Any) -> bool:
    """Whether an array is all in the memory of another one that comes back with the same layout."""
    if view.dtype.hasobject or base.dtype.hasobject:
        return False
    if not (base.flags.c_contiguous or base.flags.f_contiguous):
        return False
    start = _address(view) - _address(base)
    reaches = [step * (size - 1) for step, size in zip(view.strides, view.shape, strict=True)]
    first = start + sum(min(0, reach) for reach in reaches)
    last = start + sum(max(0, reach) for reach in reaches)
    return view.size > 0 and first >= 0 and last + view.itemsize <= base.nbytes


def view_parts(view: Any, base: Any) -> Reduced:
    """Give where in another array's memory an array is."""
    where = (base, _address(view) - _address(base), view.dtype, view.shape, view.strides)
    return make_view, (*where, view.flags.writeable)


def make_view(
    base: Any,
    offset: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,  # noqa: FBT001
) -> Any:
    """Look into an array."""
    memory = base.reshape(-1, order="A").view("u1")
    made = import_module("numpy").ndarray(shape, dtype, memory, offset, strides)
    if not writeable:
        made.flags.writeable = False
    return made


def _address(array: Any) -> int:
    return array.__array_interface__["data"][0]
