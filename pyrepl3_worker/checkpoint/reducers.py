"""How to pickle objects that plain pickle cannot save, or would restore as something else.

Caches, type variables and properties of the standard library; lists and dicts with item methods of their
own, and instances of classes that are not ready to be unpickled; exceptions; views of dicts and of NumPy
arrays.
"""

from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from functools import lru_cache
from gc import get_referents
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MappingProxyType
from typing import Any, Final, NewType, ParamSpec, TypeVar, TypeVarTuple, cast

from pyrepl3_worker.checkpoint.by_value import PickledAs, ReduceValue, name_reference
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, class_dict, find_in_mro, module_name


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


def is_method_wrapper(kind: type[Any]) -> bool:
    """Return whether a type is a class or static method's."""
    return issubclass(kind, classmethod | staticmethod)


def reduce_method_wrapper(method: Any) -> ReduceValue:
    """Return the reduce value of an instance of a subclass of `classmethod` or `staticmethod`."""
    kind = cast("type[Any]", type(method))
    base = classmethod if issubclass(kind, classmethod) else staticmethod
    return (
        make_method_wrapper,
        (base, kind, method.__func__),
        object.__getstate__(method),
        None,
        None,
        fill_wrapper,
    )


def make_method_wrapper(base: Any, kind: type, function: object) -> Any:
    """Make an instance of a subclass of `base` without the subclass's own code."""
    made = base.__new__(kind, function)
    base.__init__(made, function)
    return made


def fill_wrapper(method: Any, state: Any) -> None:
    """Set the attributes of a class or static method."""
    _set_attributes(method, *_split_state(state))


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


def needs_plain_instances(kind: type) -> bool:
    """Return whether instances have to be made without the session's own code, which is not ready for that.

    pickle calls `__new__` without the arguments that it wants, looks for `__setstate__` by way of a
    `__getattr__` that wants a filled object, and hashes an object that is not filled yet.
    """
    if module_name(kind) != "__main__" or any(
        find_in_mro(kind, name) is not find_in_mro(object, name)
        for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__")
    ):
        return False
    if type(find_in_mro(kind, "__getnewargs__")) is FunctionType or (
        find_in_mro(kind, "__getnewargs_ex__") is not UNKNOWN
    ):
        return False
    return any(
        type(find_in_mro(kind, name)) in (FunctionType, staticmethod)
        for name in ("__new__", "__getattr__", "__getattribute__", "__setattr__", "__hash__")
    )


def instance_reducer(kind: type[Any]) -> Callable[[Any], ReduceValue]:
    """Return what gives the reduce value of an instance of a session's class, made without running its code.

    Where its hash is code of the session, what that most likely looks at (numbers and texts) is there from
    the start: an object may be met inside of a set or a key before it is filled.
    """
    base = next(each for each in kind.__mro__ if type(class_dict(each).get("__new__")) is BuiltinFunctionType)
    arguments = find_in_mro(kind, "__getnewargs__")
    has_arguments = arguments is not UNKNOWN
    own_hash = type(find_in_mro(kind, "__hash__")) is FunctionType
    has_items = issubclass(kind, list | dict)

    def reduce_instance(value: Any) -> ReduceValue:
        made_of: tuple[Any, ...] = cast(Any, arguments)(value) if has_arguments else ()
        own, slots = _split_state(object.__getstate__(value))
        early = (_plain_items(own), _plain_items(slots)) if own_hash else ()
        content = own, slots, *(_items(value, kind) if has_items else (None, None))
        return make_instance, (base, kind, made_of, *early), content, None, None, fill_instance

    return reduce_instance


def may_be_hashed_too_early(reduced: ReduceValue) -> bool:
    """Return whether an instance's own hash may look at attributes that are set only after its making."""
    _, (_, _, _, *early), (own, slots, *_), *_ = reduced
    return bool(early) and (len(early[0]), len(early[1])) != (len(own), len(slots))


def reduce_container(value: Any) -> ReduceValue:
    """Return the reduce value of a list or dict of a subclass, with its items as they are."""
    make, arguments, state, *_ = object.__reduce_ex__(value, 2)
    kind = cast("type[Any]", type(value))
    return make, arguments, (state, *_items(value, kind)), None, None, fill_container


def _items(value: Any, kind: type[Any]) -> tuple[list[Any] | None, dict[Any, Any] | None]:
    items = list[Any](list[Any].__iter__(value)) if issubclass(kind, list) else None
    table = dict[Any, Any](dict[Any, Any].items(value)) if issubclass(kind, dict) else None
    return items, table


def _split_state(state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of `__dict__` and of the slots, of what `object.__getstate__` gives."""
    own, slots = cast("tuple[Any, Any]", state if type(state) is tuple else (state, None))
    return own or {}, slots or {}


def _plain_items(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in attributes.items()
        if type(value) in _PLAIN_TYPES or (type(value) is tuple and _is_plain(cast("object", value)))
    }


def _is_plain(value: object) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, cast("tuple[object, ...]", value)))
    return type(value) in _PLAIN_TYPES


_PLAIN_TYPES: Final = frozenset({int, float, complex, bool, type(None), str, bytes})


def make_instance(base: Any, kind: type, made_of: tuple[Any, ...], *early: dict[str, Any]) -> Any:
    """Make an instance by the `__new__` of its built-in base; `fill_instance` sets the rest.

    `early` is empty, or what of its `__dict__` and of its slots is set at once.
    """
    value = base.__new__(kind, *made_of)
    if early:
        _set_attributes(value, *early)
    return value


def _set_attributes(value: Any, own: dict[str, Any], slots: dict[str, Any]) -> None:
    """Set attributes without the class's own `__setattr__`."""
    if own:
        attributes: dict[str, Any] = object.__getattribute__(value, "__dict__")
        attributes.clear()  # so that they come in their order
        attributes.update(own)
    for name, slot in slots.items():
        object.__setattr__(value, name, slot)


def fill_instance(
    value: Any, content: tuple[dict[str, Any], dict[str, Any], list[Any] | None, dict[Any, Any] | None]
) -> None:
    """Set the attributes of an instance, and put its items in."""
    own, slots, items, table = content
    _set_attributes(value, own, slots)
    _put_items(value, items, table)


def fill_container(value: Any, content: tuple[Any, list[Any] | None, dict[Any, Any] | None]) -> None:
    """Put items in without the class's own methods, then set the state as pickle does."""
    state, items, table = content
    _put_items(value, items, table)
    setter = find_in_mro(cast("type[Any]", type(value)), "__setstate__")
    if state is None:
        return
    if setter is not UNKNOWN:
        value.__setstate__(state)
        return
    _set_attributes(value, *_split_state(state))


def _put_items(value: Any, items: list[Any] | None, table: dict[Any, Any] | None) -> None:
    if items is not None:
        list[Any].extend(value, items)
    if table is not None:
        dict[Any, Any].update(value, table)


# --- exceptions -----------------------------------------------------------------------------------------


def reduce_exception(error: BaseException, reduced: ReduceValue) -> ReduceValue:
    """Return an exception's reduce value with what its own leaves out: cause and context.

    Its traceback holds the frames of code that has ended, and is not saved.

    Args:
        error: the exception.
        reduced: what makes it again: a callable, its arguments, possibly a state.
    """
    if error.__cause__ is None and error.__context__ is None and not error.__suppress_context__:
        return reduced
    make, arguments, state, *rest = (*reduced, None)
    if any(each is not None for each in rest):
        return reduced  # its own way to be filled
    links = error.__cause__, error.__context__, error.__suppress_context__
    return make, arguments, (state, *links), None, None, fill_exception


def fill_exception(
    error: BaseException, content: tuple[Any, BaseException | None, BaseException | None, bool]
) -> None:
    """Set the state of an exception as pickle does, then its cause and context."""
    state, cause, context, suppressed = content
    if state is not None:
        error.__setstate__(state)
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = suppressed


# --- views of dicts ---------------------------------------------------------------------------------------


def reduce_mapping_proxy(proxy: MappingProxyType[Any, Any]) -> ReduceValue:
    """Return the reduce value of a read-only view of a mapping: a view of the same one."""
    viewed = cast("Mapping[Any, Any]", get_referents(proxy)[0])
    descriptor = _own_descriptor(viewed)
    if type(descriptor) is GetSetDescriptorType and class_dict(descriptor.__objclass__) == proxy:
        return vars, (descriptor.__objclass__,)
    return MappingProxyType, (viewed,)


def _own_descriptor(viewed: Mapping[Any, Any]) -> object:
    """Return what only the dict of a class holds: a descriptor that names the class."""
    return viewed.get("__dict__", viewed.get("__weakref__"))


def reduce_dict_view(view: Any) -> ReduceValue:
    """Return the reduce value of a dict's `keys()`, `values()` or `items()`."""
    kind: str = type(view).__name__
    viewed = get_referents(view.mapping)[0]
    return make_dict_view, (kind.rpartition("_")[2], viewed)


def make_dict_view(name: str, viewed: dict[Any, Any]) -> Any:
    """Make a view of a dict."""
    return getattr(dict[Any, Any], name)(viewed)


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


# --- context variables ------------------------------------------------------------------------------------


IN_CONTEXT: Final = "contextvars.copy_context().run"
"""By this name a pickle refers to what calls a function in the context of the session's cells."""


def reduce_context_var(
    variable: ContextVar[Any], place: tuple[str, str] | None, in_context: Callable[..., Any]
) -> ReduceValue:
    """Return the reduce value of a context variable: its name, its default, and its value for cells.

    Args:
        variable: the variable.
        place: the module and name that it can be imported by; None if it is the session's own.
        in_context: calls a function in the context of cells.
    """
    made: ReduceValue = (make_context_var, (variable.name, *_values_in(Context().run, variable)))
    if place is not None:
        made = (find_context_var, place)
    state = PickledAs(name_reference(IN_CONTEXT)), *_values_in(in_context, variable)
    return *made, state, None, None, fill_context_var


def _values_in(run: Callable[..., Any], variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        return (run(variable.get),)
    except LookupError:
        return ()


def make_context_var(name: str, *default: Any) -> ContextVar[Any]:
    """Make a context variable, with a default if one is given."""
    return ContextVar(name, default=default[0]) if default else ContextVar(name)


def find_context_var(module: str, name: str) -> ContextVar[Any]:
    """Return a library's context variable."""
    return getattr(import_module(module), name)


def fill_context_var(variable: ContextVar[Any], content: tuple[Any, ...]) -> None:
    """Set the variable for the session's cells, if they had a value."""
    in_context, *value = content
    if value:
        in_context(variable.set, value[0])
