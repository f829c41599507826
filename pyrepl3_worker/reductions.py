"""Objects of the standard library that pickle saves by a name which a fresh worker does not have."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NewType, ParamSpec, TypeVar, TypeVarTuple

from pyrepl3_worker.definitions import Reduced


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
