"""The folders that an interpreter needs, found without running it: code may have written what it reads.

They are what a strictly confined worker sees of Python: the folders in which the interpreter stands and to
which its links lead, the prefix of its virtual environment and of the Python below that, and what is on its
`sys.path` from the start on: PYTHONPATH, packages of the user, and lines of .pth files that are paths.
What such files have Python run may add more; that has to be named in the policy.
"""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Final, cast

OURS: Final = ("pyrepl3_worker", "pyrepl3_schemas", "msgspec")
"""The packages that a worker needs, whatever interpreter it runs in."""
_MAX_LINKS: Final = 40
_MAX_SCRIPT_BYTES: Final = 64 * 1024
_MAX_PROGRAMS: Final = 16
"""Programs that may stand one behind the other: links and scripts that run another one."""
_SITE_FOLDERS: Final = ("site-packages", "dist-packages")
_LIBRARY_FOLDERS: Final = ("lib", "lib64")
_NIX_STORE: Final = "/nix/store"
_SETTLED_NS: Final = 2_000_000_000
"""Nanoseconds: more than what any file system's times are apart."""
_MAX_REMEMBERED: Final = 1000
_memory: Final[dict[tuple[str, Callable[[str], object]], tuple[tuple[int, ...], object]]] = {}
"""What was read of files and folders, with what these were then."""


@dataclass(slots=True)
class PythonView:
    """What an interpreter needs, as absolute paths. Not all of them need to exist."""

    programs: list[str] = field(default_factory=list[str])
    """The folders of the interpreter, of what its links lead to, and of what a script in its place runs."""
    prefixes: list[str] = field(default_factory=list[str])
    """Of the virtual environment, and of the Python that it is made from."""
    packages: list[str] = field(default_factory=list[str])
    """Folders for packages below the prefixes, and the user's own."""
    added: list[str] = field(default_factory=list[str])
    """What PYTHONPATH and .pth files name."""

    def all(self) -> tuple[str, ...]:
        """Return all paths, each once, with what their links lead to."""
        paths = [*self.programs, *self.prefixes, *self.packages, *self.added]
        if any(os.path.realpath(prefix).startswith(_NIX_STORE) for prefix in self.prefixes):
            paths.append(_NIX_STORE)
        return tuple(dict.fromkeys(each for path in paths for each in (path, os.path.realpath(path))))


def find_view(python: str, environment: Mapping[str, str], directory: str) -> PythonView:
    """Return what an interpreter needs.

    Args:
        python: its path; a name alone is looked up in PATH.
        environment: the variables with which it is started.
        directory: the absolute path of the directory in which it is started.
    """
    view = PythonView()
    program = python if "/" in python else shutil.which(python, path=environment.get("PATH", os.defpath))
    for path in _programs(os.path.abspath(program or python)):
        view.programs.append(os.path.dirname(path))
        _add_prefixes(path, view)
    for prefix in environment.get("PYTHONHOME", "").split(":"):
        if prefix:
            view.prefixes.append(os.path.join(directory, prefix))
    if python == sys.executable:
        view.prefixes += [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    if environment.get("PYTHONPATH"):
        view.added += [os.path.join(directory, part) for part in environment["PYTHONPATH"].split(":")]
    for prefix in dict.fromkeys(view.prefixes):
        view.packages += _package_folders(prefix)
    if _reads_user_packages(view.prefixes, environment):
        view.packages += _user_packages(environment)
    for folder in dict.fromkeys(view.packages):
        view.added += _lines_of_pth_files(folder)
    for name in "prefixes", "added", "packages", "programs":
        normal = (os.path.normpath(path) for path in getattr(view, name) if os.path.isabs(path))
        setattr(view, name, list(dict.fromkeys(normal)))
    return view


@cache
def our_folders() -> tuple[str, ...]:
    """Return the folders of `OURS`, as this program would import them.

    Raises:
        LookupError: one is in no folder; the text is its name.
    """
    found: list[str] = []
    for name in OURS:
        spec = find_spec(name)  # which imports nothing
        folders = None if spec is None else spec.submodule_search_locations
        if not folders or not os.path.isfile(f"{folders[0]}/__init__.py"):
            raise LookupError(name)
        found.append(os.path.abspath(folders[0]))
    return tuple(found)


def _programs(path: str) -> Iterator[str]:
    """Yield an interpreter, what its links lead to, and the programs that it runs if it is a script."""
    waiting, seen = [path], set[str]()
    while waiting and len(seen) < _MAX_PROGRAMS:
        path = waiting.pop(0)
        for _ in range(_MAX_LINKS):
            if path in seen:
                break
            seen.add(path)
            yield path
            if not os.path.islink(path):
                waiting += _programs_in_script(path)
                break
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        if os.path.exists(path) and os.path.realpath(path) not in seen:
            waiting.insert(0, os.path.realpath(path))


def _programs_in_script(path: str) -> Iterator[str]:
    """Yield programs that a script in the place of an interpreter names by their paths."""
    for line in _read_script(path).splitlines():
        try:
            words = shlex.split(line)
        except ValueError:  # quotes that are not closed in this line
            continue
        for word in words:
            name = os.path.basename(word)
            if os.path.isabs(word) and name.startswith(("python", "pypy")) and os.access(word, os.X_OK):
                yield os.path.normpath(word)


def _read_script(path: str) -> str:
    """Return a script without its first two characters; empty if the file is none."""
    try:
        return _remembered(path, _content_of_script)
    except OSError:
        return ""


def _content_of_script(path: str) -> str:
    with open(path, "rb") as file:
        return os.fsdecode(file.read(_MAX_SCRIPT_BYTES)) if file.read(2) == b"#!" else ""


def _add_prefixes(program: str, view: PythonView) -> None:
    """Add the prefix of a virtual environment and that of Python itself, as Python finds them."""
    folder = os.path.dirname(program)
    for place in folder, os.path.dirname(folder):
        settings = _read_settings(os.path.join(place, "pyvenv.cfg"))
        if settings is None:
            continue
        view.prefixes.append(place)
        if "home" in settings:
            home = os.path.join(place, settings["home"])
            # The Python there is a link too, where that is one of a system.
            for name in os.path.basename(program), "python3", "python":
                base = os.path.join(home, name)
                if os.path.exists(base):
                    view.programs += [home, os.path.dirname(os.path.realpath(base))]
                    _add_base_prefix(os.path.dirname(os.path.realpath(base)), view)
                    break
            _add_base_prefix(home, view)
        return
    if not os.path.islink(program) and not _read_script(program):
        _add_base_prefix(folder, view)


def _add_base_prefix(folder: str, view: PythonView) -> None:
    """Add the prefix of a Python whose program is in a folder: the next one above that has its library."""
    above = folder
    while above != os.path.dirname(above):
        libraries = list(_libraries(above))
        if libraries:
            view.prefixes += [above, *_linked_prefixes(libraries)]
            return
        above = os.path.dirname(above)


def _linked_prefixes(libraries: Iterable[str]) -> Iterator[str]:
    """Yield the prefixes of the Pythons to whose files libraries link, file by file, as conda can have it."""
    for library in libraries:
        real = os.path.dirname(os.path.realpath(os.path.join(library, "os.py")))
        parent, name = os.path.split(real)
        if name == os.path.basename(library) and os.path.basename(parent) in _LIBRARY_FOLDERS:
            yield os.path.dirname(parent)


def _libraries(prefix: str) -> Iterator[str]:
    """Yield the folders of the standard library below a prefix."""
    for name in _LIBRARY_FOLDERS:
        folder = os.path.join(prefix, name)
        for entry in _names(folder):
            if entry.startswith("python3.") and os.path.isfile(os.path.join(folder, entry, "os.py")):
                yield os.path.join(folder, entry)


def _package_folders(prefix: str) -> Iterator[str]:
    """Yield the folders for packages below a prefix: of any version, and as Debian has them too."""
    for name in (*_LIBRARY_FOLDERS, "local/lib"):
        folder = os.path.join(prefix, name)
        for entry in _names(folder):
            if entry.startswith("python3"):
                yield from (os.path.join(folder, entry, site) for site in _SITE_FOLDERS)


def _reads_user_packages(prefixes: Iterable[str], environment: Mapping[str, str]) -> bool:
    """Return whether the interpreter looks for packages of the user."""
    if environment.get("PYTHONNOUSERSITE") or os.geteuid() != os.getuid() or os.getegid() != os.getgid():
        return False
    settings = [_read_settings(os.path.join(prefix, "pyvenv.cfg")) for prefix in prefixes]
    venvs = [each for each in settings if each is not None]
    return not venvs or any(each.get("include-system-site-packages", "").lower() == "true" for each in venvs)


def _user_packages(environment: Mapping[str, str]) -> Iterator[str]:
    base = environment.get("PYTHONUSERBASE") or os.path.join(environment.get("HOME", ""), ".local")
    if os.path.isabs(base):
        yield from _package_folders(base)


def _lines_of_pth_files(folder: str) -> Iterator[str]:
    """Yield the paths that .pth files in a folder for packages add, as `site` does; nothing is run."""
    for name in sorted(_names(folder)):
        if not name.endswith(".pth") or name.startswith("."):
            continue
        try:
            lines = _remembered(os.path.join(folder, name), _lines)
        except OSError:
            continue
        for line in lines:
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                path = os.path.join(folder, line.rstrip())
                if "\0" not in path and os.path.exists(path):
                    yield path


def _read_settings(path: str) -> dict[str, str] | None:
    """Return what stands in a `pyvenv.cfg`; None if there is none."""
    try:
        return _remembered(path, _pairs)
    except OSError:
        return None


def _pairs(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        pairs = [line.partition("=") for line in file]
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


def _lines(path: str) -> list[str]:
    with open(path, "rb") as file:
        return os.fsdecode(file.read().removeprefix(b"\xef\xbb\xbf")).splitlines()


def _names(folder: str) -> list[str]:
    try:
        return _remembered(folder, os.listdir)
    except OSError:
        return []


def _remembered[T](path: str, read: Callable[[str], T]) -> T:
    """Return what is read of a file or folder: from memory, if that has not changed since.

    Two changes may have the same time in a file system. So what was changed just before it was read is not
    remembered.

    Raises:
        OSError: it cannot be read.
    """
    status = os.stat(path)
    identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    known = _memory.get((path, read))
    if known is not None and known[0] == identity:
        return cast("T", known[1])
    content = read(path)
    if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
        if len(_memory) >= _MAX_REMEMBERED:
            _memory.clear()
        _memory[path, read] = identity, content
    return content
