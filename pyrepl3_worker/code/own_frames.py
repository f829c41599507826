"""Which frames of a stack are the worker's own, recognised by their files."""

import os
from typing import Final

import pyrepl3_worker

PACKAGE_FOLDER: Final = os.path.dirname(pyrepl3_worker.__file__) + os.sep
"""The worker's root folder: a frame whose file lies below it is one of the worker's."""

TRANSPARENT_FILES: Final = frozenset(
    PACKAGE_FOLDER + name
    for name in (
        "checkpoint/by_value.py",
        "checkpoint/foreign_code.py",
        "checkpoint/pickler.py",
        "checkpoint/reducers.py",
        "checkpoint/scope.py",
        "checkpoint/unsaveable.py",
        "rendering/display.py",
        "rendering/exceptions.py",
        "rendering/reprs.py",
    )
)
"""Files of the worker through which a signal handler may raise an exception all the same.

They only call the own code of the user's objects (`__repr__`, `__reduce__`), and hold no state that an
exception could break (or, where objects are pickled, none that is used after an error).
"""
