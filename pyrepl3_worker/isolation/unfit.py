"""Says why the worker can't run in an interpreter, and finds another msgspec where ours is of another Python.

`lent_start` runs this file, which any interpreter, however old, can read.
"""

# pyright: reportTypeCommentUsage=false

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn  # noqa: F401 - for comments

EXIT_UNFIT = 78
"""EX_CONFIG of sysexits.h: the worker can't run in this interpreter."""
MIN_MSGSPEC = (0, 21, 1)


def find_msgspec(lent):
    # type: (str) -> str
    """Return the folder of a msgspec that this interpreter can load; end the process if there is none.

    Args:
        lent: the folder of the client's, which it can't load.
    """
    import platform

    name = platform.python_implementation()
    what = "%s is %s %s" % (sys.executable, name, platform.python_version())
    if name != "CPython":
        refuse(what + ", and a session needs CPython 3.12 or newer: give python= the path of one")
    if sys.version_info < (3, 12):
        refuse(
            what + ", and a session needs 3.12 or newer: give python= the path of one, or make the virtual "
            "environment again with one (python3.12 -m venv FOLDER)"
        )
    if "t" in sys.abiflags:
        refuse(
            what + " without the global interpreter lock (free-threaded), on which a session can't run: give "
            "python= the path of a build that has it (python%d.%d, without a t)" % sys.version_info[:2]
        )
    return find_other_msgspec(lent, what)


def find_other_msgspec(lent, what):
    # type: (str, str) -> str
    """Return the folder of the interpreter's own msgspec; `what` says which interpreter this is."""
    import _imp
    from importlib.machinery import PathFinder

    suffixes = _imp.extension_suffixes()
    built = [file[6:-3] for file in sorted(os.listdir(lent)) if file[:6] == "_core." and file[-3:] == ".so"]
    why = "%s (%s), and the msgspec of this program is built for %s" % (
        what,
        suffixes[0][1:-3],
        " and ".join(built) or "none that is known",
    )
    install = "%s -m pip install 'msgspec>=%s'" % (sys.executable, ".".join(map(str, MIN_MSGSPEC)))
    found = PathFinder.find_spec("msgspec")
    if found is None or not found.origin:
        refuse(
            why + ": install msgspec there (" + install + "), or give python= the path of one that it fits"
        )
    folder = os.path.dirname(found.origin)
    if not any(os.path.exists(folder + "/_core" + suffix) for suffix in suffixes):
        refuse("%s; that in %s can't be loaded there either: install it again (%s)" % (why, folder, install))
    version = read_version(folder)
    if version is not None and version < MIN_MSGSPEC:
        old = ".".join(map(str, version))
        refuse("%s; msgspec %s, which is installed there, is too old: upgrade it (%s)" % (why, old, install))
    return folder


def read_version(folder):
    # type: (str) -> tuple[int, ...] | None
    """Return the version of the msgspec in a folder as numbers; None if it does not say."""
    try:
        with open(folder + "/_version.py") as file:
            text = file.read()
        line = next(line for line in text.splitlines() if line.startswith("__version__ ="))
        return tuple(int(part) for part in line.split("=")[-1].strip(" '\"").split(".")[:3])
    except (OSError, StopIteration, ValueError):
        return None


def refuse(reason):
    # type: (str) -> NoReturn
    """Say why, and end the process."""
    sys.stderr.write("pyrepl3-worker: " + reason + "\n")
    sys.stderr.flush()
    os._exit(EXIT_UNFIT)
