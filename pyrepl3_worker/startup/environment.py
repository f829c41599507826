"""Has `python`, `pip` and the like mean this interpreter's, in every shell that the code starts."""

import os
import sys
from collections.abc import MutableMapping
from typing import Final

_NAMES: Final = ("python", "python3", "pip", "pip3")


def agree_with_interpreter(environment: MutableMapping[str, str]) -> None:
    """Put the interpreter's programs first on PATH, and name its virtual environment in VIRTUAL_ENV.

    Programs of a Python that is none of a virtual environment mostly stand beside those of the system. PATH
    stays as it is then, if it finds Python's programs there.

    Args:
        environment: variables, which are changed.
    """
    programs = os.path.dirname(sys.executable)
    if not programs:
        return  # it does not know its own path
    is_virtual = sys.prefix != sys.base_prefix
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    if folders[0] != programs and (is_virtual or _others_come_first(programs, folders)):
        folders = [programs, *(folder for folder in folders if folder != programs)]
        environment["PATH"] = os.pathsep.join(folders)
    if is_virtual:
        if environment.get("VIRTUAL_ENV") != sys.prefix:
            environment["VIRTUAL_ENV"] = sys.prefix
            environment.pop("VIRTUAL_ENV_PROMPT", None)
    elif "VIRTUAL_ENV" in environment:
        del environment["VIRTUAL_ENV"]  # of another one, which pip of uv's and others would go by
        environment.pop("VIRTUAL_ENV_PROMPT", None)


def _others_come_first(programs: str, folders: list[str]) -> bool:
    """Return whether one of Python's programs is found elsewhere than beside the interpreter."""
    for name in _NAMES:
        found = next((folder for folder in folders if os.access(f"{folder or '.'}/{name}", os.X_OK)), None)
        if found is not None and os.path.realpath(found) != os.path.realpath(programs):
            return True
    return programs not in folders
