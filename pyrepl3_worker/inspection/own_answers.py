"""What objects say of themselves to editors: `__dir__` and `_ipython_key_completions_`.

These are the code's own functions. Whether they are called, and for how long, is up to who asks.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

from pyrepl3_worker.rendering.static_lookup import InstanceOf, find_in_mro, instance_dict, is_module

type Call = Callable[..., object]
"""Calls a function of the code's; returns what is in what it returns, or None where there is no answer."""


def call_nothing(function: Callable[..., object], *arguments: object) -> None:
    """Call nothing of the code's."""
    del function, arguments


def attribute_names(value: object, call: Call) -> list[str]:
    """Return the names that an object's `__dir__` gives, if its class, or the module, defines one."""
    own = instance_dict(value).get("__dir__") if is_module(value) else None
    if type(own) is FunctionType:
        return _texts(call(own))
    return _ask(value, "__dir__", call)


def keys(value: object, call: Call) -> list[str]:
    """Return the keys that an object's `_ipython_key_completions_` gives, if its class defines it."""
    return _ask(value, "_ipython_key_completions_", call)


def _ask(value: object, method: str, call: Call) -> list[str]:
    function = find_in_mro(type(value), method)
    if type(value) is InstanceOf or type(function) is not FunctionType:
        return []
    return _texts(call(function, value))


def _texts(found: Any) -> list[str]:
    return [text for text in cast("list[object]", found or ()) if type(text) is str]
