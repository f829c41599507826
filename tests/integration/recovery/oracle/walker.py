"""Describes what a program has left: runs in the worker, and imports nothing of pyrepl3.

The process's state is read first, since what follows imports modules.
"""

# It looks at whatever there is:
# pyright: basic
import io
import json
import os
import sys
from typing import Any

_NOT_COMPARED = ("__pycache__", "tmp", "z.zip")
"""What another process names or fills otherwise: bytecode has times, temporary files have random names."""


def write(
    namespace: dict[str, Any],
    target: str,
    names_walker: str,
    root: str,
    probes: dict[str, str],
    provided: list[str],
    without: list[str],
    history: bool,
) -> None:
    """Write what is comparable to a file, as JSON: texts by what they are about.

    Args:
        namespace: the session's.
        target: the file.
        names_walker: path of the module that describes names.
        root: the session's own directory.
        probes: expressions for parts of the process's state.
        provided: names that stand in builtins unless the code has bound them.
        without: names that are left out.
        history: whether to describe `In` and `Out`.
    """
    helpers = {"describe_handler": describe_handler, "describe_function": describe_function}
    scope = {**sys.modules, **helpers}
    said: dict[str, Any] = {f"({key})": repr(eval(probe, scope)) for key, probe in probes.items()}
    for name in provided:
        if name not in namespace:
            said[f"({name})"] = type(eval(name, namespace)).__qualname__
    found = {
        name: value
        for name, value in dict(namespace).items()
        if name not in without and not name.startswith("_") and name not in ("In", "Out")
    }
    if history:
        said["(In)"] = repr(list(namespace["In"])[1:-1])
        results = {f"Out[{number}]": value for number, value in dict(namespace["Out"]).items()}
        found |= {name: value for name, value in results.items() if name not in without}
    for value in dict(namespace).values():
        _flush(value)
    said |= __import__("runpy").run_path(names_walker)["describe"](found)
    said |= {f"file {path!r}": text for path, text in _files(root)}
    with open(target, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps(said))


def describe_function(value: Any) -> str:
    """Return what tells one function of a session from another."""
    if not hasattr(value, "__code__"):
        return f"{getattr(value, '__qualname__', value)}"
    return f"{value.__module__}.{value.__qualname__} {value.__code__.co_consts}"


def describe_handler(handler: Any) -> Any:
    """Return what a handler of a logger does, and where it writes to."""
    shown = handler.formatter and (handler.formatter._fmt, handler.formatter.datefmt)
    target = getattr(handler, "baseFilename", getattr(getattr(handler, "stream", None), "name", None))
    return type(handler).__qualname__, handler.level, shown, target, len(handler.filters)


def _flush(value: Any) -> None:
    if isinstance(value, io.IOBase) and not value.closed and value.writable():
        value.flush()
    elif type(value) in (list, tuple):
        for each in value:
            _flush(each)


def _files(root: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if any(part.startswith(_NOT_COMPARED) for part in relative.split("/")):
                continue
            mode = oct(os.lstat(path).st_mode)
            if os.path.islink(path):
                found.append((relative, f"{mode} to {os.readlink(path)}"))
            elif name in files:
                with open(path, "rb") as file:
                    found.append((relative, f"{mode} {file.read()!r}"))
            else:
                found.append((relative, mode))
    return found
