"""The names that no host function may have.

Host functions stand in builtins, where the code of every module looks for a name that it does not have
itself. One called `open` would be called by each library that opens a file.
"""

import builtins
from types import BuiltinFunctionType
from typing import Final

NAMESPACE_NAMES: Final = frozenset({"_", "__", "___", "_i", "_ii", "_iii", "In", "Out"})
"""Names that a session binds in the code's namespace: they hide what stands in builtins."""

SET_VALUES: Final = "__pyrepl3_set__"
"""The host function of the session's own by which its client sets variables."""

_OFTEN_REPLACED: Final = frozenset({"input", "open", "print"})
"""Builtins in whose place a program may have put functions of its own."""


def why_reserved(name: str) -> str:
    """Return why no host function may have a name; empty if it may.

    `exit`, `quit`, `help` and what else `site` adds for people may be replaced, and so may `display`.
    """
    if name in NAMESPACE_NAMES or (name.startswith("__") and name.endswith("__")):
        return "the session uses that name itself"
    value = vars(builtins).get(name)
    if (
        name in _OFTEN_REPLACED
        or isinstance(value, BuiltinFunctionType | type)
        or value is ...
        or value is NotImplemented
    ):
        return "that is a builtin, which libraries use too"
    return ""
