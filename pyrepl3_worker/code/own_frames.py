"""Which frames of a stack are the worker's own, and which are a cell's, recognised by their files."""

import os
from typing import Final

import pyrepl3_schemas
import pyrepl3_worker

CELL_PREFIX: Final = "<cell "
"""How the files of cells begin that have no name of their own."""
named_cell_files: Final[set[str]] = set()
"""The names that cells were given: files that an editor has open."""

PACKAGE_FOLDER: Final = os.path.dirname(pyrepl3_worker.__file__) + os.sep
"""The worker's root folder: a frame whose file lies below it is one of the worker's."""
OWN_FOLDERS: Final = (PACKAGE_FOLDER, os.path.dirname(pyrepl3_schemas.__file__) + os.sep)
"""The same, and what the client shares with it."""

hidden_prefixes: tuple[str, ...] = OWN_FOLDERS
"""What the names of files begin with whose frames are not shown."""


def hide(*prefixes: str) -> None:
    """Show no frames of further files: those of a machinery that runs the code on the worker's behalf.

    Args:
        prefixes: what the names of these files begin with.
    """
    global hidden_prefixes  # noqa: PLW0603 - one process, one worker
    hidden_prefixes = (*hidden_prefixes, *prefixes)


TRANSPARENT_FILES: Final = frozenset(
    PACKAGE_FOLDER + name
    for name in (
        "checkpoint/by_value.py",
        "checkpoint/foreign_code.py",
        "checkpoint/pickler.py",
        "checkpoint/received.py",
        "checkpoint/reducers.py",
        "checkpoint/scope.py",
        "checkpoint/sent.py",
        "checkpoint/unsaveable.py",
        "code/repl_hooks.py",
        "ipython/shell.py",
        "ipython/syntax.py",
        "isolation/after_import.py",
        "rendering/display.py",
        "rendering/exceptions.py",
        "rendering/figures.py",
        "rendering/libraries.py",
        "rendering/own_lines.py",
        "rendering/reprs.py",
    )
)
"""Files of the worker through which a signal handler may raise an exception all the same.

They only call the own code of the user's objects (`__repr__`, `__reduce__`), and hold no state that an
exception could break (or, where objects are pickled, none that is used after an error).
"""


def is_cell_file(filename: str) -> bool:
    """Return whether a code object's file is a cell, or what an editor has sent under its own name."""
    return filename.startswith(CELL_PREFIX) or filename in named_cell_files
