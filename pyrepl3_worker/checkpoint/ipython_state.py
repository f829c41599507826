"""How the state of IPython's shell is saved, where a session has its syntax: extensions, magics, aliases, ….

What IPython has of its own is not saved, nor what an extension registers: it is loaded again. What else can't
be kept is reported.
"""

import sys
from types import FunctionType
from typing import Any, Final

import pyrepl3_worker
from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.checkpoint.process_state import Report, Saver

_SHELL_MODULE: Final = f"{pyrepl3_worker.__name__}.ipython.shell"
_OWN_EXTENSION: Final = "IPython.extensions.storemagic"
_NAME: Final = "get_ipython()"
_AUTORELOAD: Final = "AutoreloadMagics"
_PLAIN: Final = "text/plain"


def _shell() -> Any:
    return sys.modules["IPython.core.getipython"].get_ipython()


def _of_session(function: object) -> bool:
    return type(function) is FunctionType and function.__module__ == "__main__"


def _function_lists(shell: Any) -> dict[str, list[Any]]:
    """Return the lists in which listeners and transformers stand, by what a report calls them."""
    lists = {f"get_ipython().events ({event})": each for event, each in shell.events.callbacks.items()}
    lists["get_ipython().input_transformers_cleanup"] = shell.input_transformers_cleanup
    lists["get_ipython().input_transformers_post"] = shell.input_transformers_post
    return lists


def _autoreload_mode(shell: Any) -> str:
    magics = shell.magics_manager.registry.get(_AUTORELOAD)
    if magics is None:
        return ""
    reloader = magics._reloader
    if not reloader.enabled:
        return "off"
    if not reloader.check_all:
        return "explicit"
    return "complete" if reloader.autoload_obj else "all"


def _save(_: InitialState, report: Report) -> dict[str, Any] | None:
    shell = _shell()
    plain = shell.display_formatter.formatters[_PLAIN]
    manager, aliases = shell.magics_manager, shell.alias_manager
    own_magics = {
        (kind, name): function
        for kind, magics in manager.magics.items()
        for name, function in magics.items()
        if _of_session(function)
    }
    for kind, magics in manager.magics.items():
        for name, function in magics.items():
            if type(getattr(function, "__self__", None)).__module__ == "__main__":
                mark = "%" if kind == "line" else "%%"
                report(f"{mark}{name}", "a magic of a class of the session; register the class again")
    for mime, formatter in shell.display_formatter.formatters.items():
        if any(map(_of_session, formatter.type_printers.values())):
            report(f"the formatter of {mime}", "a function for a type is not kept; register it again")
    if shell.ast_transformers:
        report("get_ipython().ast_transformers", "they are not kept; add them again")
    found: dict[str, Any] = {
        "extensions": sorted(shell.extension_manager.loaded - {_OWN_EXTENSION}),
        "aliases": [pair for pair in aliases.aliases if pair not in aliases.default_aliases],
        "magics": own_magics,
        "functions": {name: kept for name, each in _function_lists(shell).items() if (kept := _own(each))},
        "autoreload": _autoreload_mode(shell),
        "precision": plain.float_precision,
        "interactivity": shell.ast_node_interactivity,
    }
    start = {"precision": "", "interactivity": "last_expr"}
    return found if any(value for name, value in found.items() if value != start.get(name)) else None


def _own(functions: list[Any]) -> list[Any]:
    return [function for function in functions if _of_session(function)]


def _restore(saved: dict[str, Any] | None, _: InitialState) -> None:
    shell = _shell()
    for functions in _function_lists(shell).values():
        functions[:] = [function for function in functions if not _of_session(function)]
    for magics in shell.magics_manager.magics.values():
        for name in [name for name, function in magics.items() if _of_session(function)]:
            del magics[name]
    if saved is None:
        return
    for name in saved["extensions"]:
        if name not in shell.extension_manager.loaded:
            shell.extension_manager.load_extension(name)
    for name, command in saved["aliases"]:
        shell.alias_manager.soft_define_alias(name, command)
    for (kind, name), function in saved["magics"].items():
        shell.magics_manager.magics[kind][name] = function
    lists = _function_lists(shell)
    for name, functions in saved["functions"].items():
        lists[name] += functions
    if saved["autoreload"]:
        shell.run_line_magic("autoreload", saved["autoreload"])
    shell.display_formatter.formatters[_PLAIN].float_precision = saved["precision"]
    shell.ast_node_interactivity = saved["interactivity"]


SAVERS: Final = (Saver(_NAME, _SHELL_MODULE, _save, _restore, holds_objects=True),)
