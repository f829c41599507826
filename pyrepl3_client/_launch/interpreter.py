"""The command of a worker's interpreter: this program's own, or another one, to which the worker is lent.

Nothing of ours has to be installed for another one: it runs a script of the worker's by its path, which finds
the worker, the schemas and msgspec in this program's folders (`pyrepl3_worker.isolation.lending`).
"""

import errno
import os
import sys
from collections.abc import Mapping
from typing import Final

from pyrepl3_client._launch.python_view import our_folders
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import SpawnError

_SCRIPT: Final = "isolation/lent_start.py"
_WORKER_SAYS: Final = "pyrepl3-worker: "
"""How the worker's own lines on its stderr begin."""
_NOT_FOR_ANOTHER: Final = ("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "PYTHONPLATLIBDIR")
"""Variables that tell an interpreter where its modules are: another's are elsewhere."""


def is_own(config: WorkerConfig) -> bool:
    """Return whether a worker runs in the interpreter of this program."""
    return config.python == sys.executable


def base_python() -> str:
    """Return the path of the Python from which this program's virtual environment is made; else its own."""
    return vars(sys).get("_base_executable") or sys.executable


def interpreter_command(config: WorkerConfig, module: str) -> list[str]:
    """Return the command that runs a package of the worker's, without its arguments.

    Args:
        config: names the interpreter.
        module: a package with a `__main__`.

    Raises:
        SpawnError: the worker can't be lent.
    """
    if is_own(config):
        return [config.python, "-P", "-m", module]
    folders = _folders()
    return [_as_program(config.python), f"{folders[0]}/{_SCRIPT}", *folders, module]


def passed_on(config: WorkerConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """Return those of this program's variables that the interpreter gets.

    Args:
        config: names the interpreter.
        environment: the variables of this program.
    """
    if is_own(config):
        return dict(environment)
    return {name: value for name, value in environment.items() if name not in _NOT_FOR_ANOTHER}


def describe_failure(python: str, error: OSError | ValueError, what: str = "worker") -> str:
    """Return why no process could be made of an interpreter, and what to do about it.

    Args:
        python: its path as it was given.
        error: what the system said.
        what: what was to be started.
    """
    text = f"no {what} could be started with {python!r}: {error}"
    path = _as_program(python)
    if not isinstance(error, OSError) or error.filename is None:
        return text  # a limit of this process
    if error.filename not in (python, path):
        return f"{text} (the folder in which it starts: see cwd=)"
    remedy = _remedy(python, path, error.errno)
    return f"{text} ({remedy})" if remedy else text


def _remedy(python: str, path: str, number: int | None) -> str:
    """Return what is wrong with an interpreter that the system does not run, and what to do; else nothing."""
    if os.path.isdir(path):
        inside = next(filter(os.path.exists, (f"{path}/bin/python", f"{path}/python")), "")
        there = f": give {inside!r}" if inside else ""
        return f"it is a folder, and python= is the path of an interpreter{there}"
    if number == errno.ENOEXEC:
        return "it is no program of this machine, and no script whose first line names one (#!/…)"
    if number == errno.EACCES and os.path.isfile(path):
        return "this user may not execute it: give python= the path of an interpreter, or see to its mode"
    if number not in (errno.ENOENT, errno.ENOTDIR):
        return ""
    if os.path.islink(path) and not os.path.exists(path):
        target = os.path.join(os.path.dirname(path), os.readlink(path))
        return (
            f"it is a link to {target!r}, which is not there: a virtual environment whose Python was "
            "removed has to be made again, by python -m venv --clear FOLDER"
        )
    if "/" not in python:
        return "no folder of PATH has a program of that name: give python= the path of an interpreter"
    if os.path.exists(path):
        return "the file is there, but the program that its first line names, or its loader, is not"
    if python.startswith("~"):
        return "'~' stands for no folder here: take os.path.expanduser(…)"
    return "give python= the path of an interpreter; that of a virtual environment is FOLDER/bin/python"


def describe_interpreter(config: WorkerConfig, stderr: str) -> str:
    """Return which interpreter has not become ready, and what to look at; empty for our own.

    Args:
        config: names the interpreter.
        stderr: the last lines that it wrote; the worker's own say all that there is to say.
    """
    if is_own(config) or _WORKER_SAYS in stderr:
        return ""
    return (
        f"its interpreter is {config.python!r}: see whether that runs any program (-c 'print(1)'), and what "
        "it runs at every start (sitecustomize, .pth files)"
    )


def _as_program(python: str) -> str:
    """Return a path as one that holds in any directory; a name alone is looked up in PATH."""
    return os.path.abspath(python) if "/" in python else python


def _folders() -> tuple[str, ...]:
    """Return the folders of what is lent.

    Raises:
        SpawnError: one is not in a folder.
    """
    try:
        return our_folders()
    except LookupError as error:
        raise SpawnError(
            f"no worker can be lent to another interpreter: {error} is not in a folder of files here"
        ) from error
