"""What happens to the files of the work directory while a cell runs: created, changed, deleted.

It goes by inode, size and times. A file that is written through a memory map in memory (tmpfs) keeps those.
"""

import os
import stat
from os import scandir  # by name, as the next: the code may replace it
from os import stat as os_stat
from typing import Final

from pyrepl3_schemas.messages import FileChanges
from pyrepl3_worker.rendering.reprs import encodable

_MAX_ENTRIES: Final = 20_000
"""Files, links and folders that are looked at."""
_MAX_NAMED: Final = 1000
"""Paths of each kind that are named."""

type _State = tuple[int, int, int, int]


class FileWatch:
    """Compares the work directory before and after each cell."""

    def __init__(self, path: str) -> None:
        """Watch what is below an absolute path."""
        self._path = os.fsencode(path)
        self._before: dict[bytes, _State] = {}
        self._complete = True
        self._execution_id = ""

    def begin(self, execution_id: str) -> None:
        """Look at the directory: a cell begins."""
        self._execution_id = execution_id
        self._before, self._complete = self._now()

    def end(self, execution_id: str) -> FileChanges | None:
        """Return what has happened to it since `begin`; None for a cell that ends without having begun."""
        if execution_id != self._execution_id:
            return None
        before, (after, complete) = self._before, self._now()
        self._before, self._execution_id = {}, ""
        created = sorted(after.keys() - before.keys())
        deleted = sorted(before.keys() - after.keys())
        changed = sorted(path for path in after.keys() & before.keys() if after[path] != before[path])
        named = [
            [encodable(os.fsdecode(path)) for path in each[:_MAX_NAMED]]
            for each in (created, changed, deleted)
        ]
        whole = complete and self._complete and max(map(len, (created, changed, deleted))) <= _MAX_NAMED
        return FileChanges(*named, truncated=not whole)

    def _now(self) -> tuple[dict[bytes, _State], bool]:
        """Return the state of each file and link by its path, and whether these are all.

        Other file systems that are mounted there are not looked into: checkpoints do not hold them either.
        """
        states: dict[bytes, _State] = {}
        device: int | None = None
        waiting, seen = [b""], 0
        while waiting:
            folder = waiting.pop()
            full = self._path + b"/" + folder
            try:
                found_on = os_stat(full).st_dev
                device = found_on if device is None else device
                if found_on != device:
                    continue
                with scandir(full) as entries:
                    for entry in entries:
                        seen += 1
                        if seen > _MAX_ENTRIES:
                            return states, False
                        path = folder + b"/" + entry.name if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(path)
                            continue
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                            states[path] = found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            except OSError:
                continue  # it is gone, or may not be read
        return states, True
