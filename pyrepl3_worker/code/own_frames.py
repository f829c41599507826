"""Which frames of a stack are the worker's own, recognised by their file."""

import os
from typing import Final

import pyrepl3_worker

PACKAGE_FOLDER: Final = os.path.dirname(pyrepl3_worker.__file__) + os.sep
"""The worker's root folder. A frame whose file lies below it is the worker's, whichever room it is in."""

TRANSPARENT_FILES: Final = frozenset(
    PACKAGE_FOLDER + name
    for name in (
        "checkpoint/by_value.py",
        "checkpoint/pickler.py",
        "checkpoint/reducers.py",
        "checkpoint/scope.py",
        "checkpoint/unsaveable.py",
        "rendering/display.py",
        "rendering/exceptions.py",
        "rendering/reprs.py",
    )
)
"""Files through which an exception may be raised from a signal handler, although they are the worker's.

They do nothing but call the code's own `__repr__` and the like, and hold no state that could break (or,
where objects are pickled, none that is used after an error).
"""
