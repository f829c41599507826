"""Leaves to later what asyncio and msgspec import though few sessions need it.

OpenSSL, which asyncio imports for its TLS connections, is a ninth of the private memory of a worker that has
done nothing yet (1.3 of 11.7 MB after `import asyncio, msgspec`; CPython 3.13, Linux x86-64).
"""

import sys
from types import ModuleType
from typing import Any, Final, cast

_SSL: Final = "ssl"
_TLS_PROTOCOL: Final = "asyncio.sslproto"
_TYPING_EXTENSIONS: Final = "typing_extensions"
_USERS: Final = ("asyncio.base_events", "asyncio.selector_events", "asyncio.proactor_events")
"""The modules of asyncio that have both in their globals."""


class _Late(ModuleType):
    """Stands for a module in the globals of asyncio until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # import statements look for `__path__`
        return getattr(_load(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(_load(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_load(self), name)

    def __dir__(self) -> list[str]:
        return dir(_load(self))


def import_asyncio_and_msgspec() -> None:
    """Import both, without OpenSSL and `typing_extensions`.

    The code's `import ssl` is the usual one. What of asyncio needs TLS gets the modules in its first use.
    """
    stand_ins: dict[str, Any] = {}
    if "asyncio" not in sys.modules and _has_openssl():
        stand_ins |= {name: _Late(name) for name in (_SSL, _TLS_PROTOCOL) if name not in sys.modules}
    # From 3.13 on, msgspec takes nothing of it but what `typing` has. Lent, it does without anyway.
    if sys.version_info >= (3, 13) and _TYPING_EXTENSIONS not in sys.modules:
        stand_ins[_TYPING_EXTENSIONS] = None  # has its import fail
    sys.modules.update(stand_ins)
    try:
        import asyncio

        import msgspec  # noqa: F401  # pyright: ignore[reportUnusedImport] - for all that import it later
    finally:
        for name in stand_ins:
            del sys.modules[name]
    if _TLS_PROTOCOL in stand_ins:
        cast(Any, asyncio).sslproto = stand_ins[_TLS_PROTOCOL]  # as the import of a submodule does


def _has_openssl() -> bool:
    """Return whether `import ssl` will do: where it fails, asyncio goes on without."""
    from importlib.machinery import PathFinder

    return "_ssl" in sys.builtin_module_names or PathFinder.find_spec("_ssl") is not None


def _load(stand_in: ModuleType) -> ModuleType:
    """Import what a stand-in stands for, and put it into its places."""
    if vars(stand_in)["__name__"] == _SSL:
        import ssl as module
    else:
        import asyncio.sslproto as module
    for user in _USERS:
        scope: Any = vars(sys.modules[user]) if user in sys.modules else {}
        for name in [name for name, value in scope.items() if value is stand_in]:
            scope[name] = module
    return module
