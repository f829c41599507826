"""Completes the path that is being typed in a string literal."""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Final

_MAX_ENTRIES: Final = 5000
"""Entries of a folder that are looked at."""


def matching_paths(typed: str) -> Iterator[str]:
    """Yield the names of files and folders that complete the last part of a path; folders end in a slash.

    Args:
        typed: what stands before the cursor in the string. A relative path begins in the working directory.
    """
    folder, _, prefix = typed.rpartition("/")
    where = f"{folder}/" if "/" in typed else "."
    try:
        entries = os.scandir(os.path.expanduser(where))
    except (OSError, ValueError):
        return
    with entries:
        for entry in islice(entries, _MAX_ENTRIES):
            name = entry.name
            if not name.startswith(prefix) or (name.startswith(".") and not prefix.startswith(".")):
                continue
            if name.isprintable() and not {"\\", '"', "'"} & set(name):
                yield f"{name}/" if _is_folder(entry) else name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
