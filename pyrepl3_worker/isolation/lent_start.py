"""Starts the worker in an interpreter in which nothing of ours is installed: run by its path, not imported.

    python lent_start.py WORKER SCHEMAS MSGSPEC MODULE [ARGUMENT ...]

The first three are the folders of the packages that are lent (see `lending`), MODULE is the package whose
`__main__` is run. Any interpreter, however old, can read this file, and says what is wrong with itself.
"""

# pyright: reportTypeCommentUsage=false

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401 - for comments

PREFIX = "_pyrepl3_lent"


def start(folders):
    # type: (dict[str, str]) -> None
    """Lend packages to this process; has no effect where they are lent already."""
    if PREFIX in sys.modules:
        return
    from importlib.machinery import SourceFileLoader

    module = type(sys)(PREFIX)
    # Before any code of the session can replace one of these.
    vars(module)["__builtins__"] = dict(vars(sys.modules["builtins"]))
    SourceFileLoader(PREFIX, folders["pyrepl3_worker"] + "/isolation/lending.py").exec_module(module)
    sys.modules[PREFIX] = module
    module.lend(folders)


def receive(folders, data, buffers):
    # type: (dict[str, str], bytes, list[bytearray]) -> Any
    """Return a definition that a session has sent to this process, which `multiprocessing` has started."""
    start(folders)
    name = PREFIX + ".pyrepl3_worker.checkpoint.received"
    __import__(name)
    return sys.modules[name].receive(data, buffers)


def main():
    # type: () -> None
    """Run a worker, or a fork server."""
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # this file's folder
    worker, schemas, msgspec, module = sys.argv[1:5]
    sys.argv[:] = [module] + sys.argv[5:]
    is_fit = (
        sys.version_info >= (3, 12)
        and sys.implementation.name == "cpython"
        and "t" not in sys.abiflags
        and has_compiled_msgspec(msgspec)
    )
    if not is_fit:
        scope = {"__name__": "unfit"}  # type: dict[str, Any]
        with open(worker + "/isolation/unfit.py") as file:
            exec(file.read(), scope)
        msgspec = scope["find_msgspec"](msgspec)
    start({"pyrepl3_worker": worker, "pyrepl3_schemas": schemas, "msgspec": msgspec})
    name = PREFIX + "." + module + ".__main__"
    __import__(name)
    sys.modules[name].main()


def has_compiled_msgspec(folder):
    # type: (str) -> bool
    """Return whether msgspec is there in a form that this interpreter can load."""
    import _imp
    from os import path

    return any(path.exists(folder + "/_core" + suffix) for suffix in _imp.extension_suffixes())


if __name__ == "__main__":
    main()
