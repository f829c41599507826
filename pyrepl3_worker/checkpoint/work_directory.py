"""Saves and restores the session's own work directory: its files, folders and symbolic links.

Only a directory that belongs to the session alone is given to this module. It is saved as it is between two
cells, and restoring makes it so again: what was not there then is removed. What the checkpoint could not
hold stays as it is, and is named.

Not kept: owners, extended attributes, and that two names are hard links of one file.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from time import time_ns  # by name: the code may replace it
from typing import Final

import msgspec

from pyrepl3_schemas.messages import Unsaved
from pyrepl3_worker.checkpoint.digests import sha256
from pyrepl3_worker.checkpoint.manifest import BlobCollector, BlobRefs, SavedFile, SavedFiles, join_blobs
from pyrepl3_worker.rendering.reprs import encodable

MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes of files that one checkpoint holds in all: the default size of a confined worker's directory."""
MAX_FILES: Final = 20_000
"""Files, folders and links that one checkpoint holds."""
_SETTLED_NS: Final = 100_000_000
"""Nanoseconds after which a second write gets another modification time, on any kernel."""
_NEW_SUFFIX: Final = b".pyrepl3-restored"
_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

type _State = tuple[int, int, int, int]


class _Known(msgspec.Struct, frozen=True, eq=False):
    """A file's content as it was saved last."""

    state: _State
    """Inode, size, and times of the last change of content and of anything: the same for the same content."""
    content: BlobRefs


class WorkDirectory:
    """The work directory of a session, to be saved with its checkpoints."""

    def __init__(self, path: str, *, times_tell: bool) -> None:
        """Save and restore what is below `path`.

        Args:
            path: the directory, absolute.
            times_tell: whether a file with the same times has the same content. In memory (tmpfs), a write
                through a memory map changes no time: there every file is read for each checkpoint.
        """
        self._path = os.fsencode(path)
        self._times_tell = times_tell
        self._known: dict[bytes, _Known] = {}

    # --- saving --------------------------------------------------------------------------------------

    def save(self, collector: BlobCollector) -> tuple[SavedFiles, list[Unsaved]]:
        """Save the directory, and say what could not be saved."""
        entries: list[SavedFile] = []
        kept: list[bytes] = []
        unsaved: list[Unsaved] = []

        def leave_out(path: bytes, reason: str) -> None:
            kept.append(path)
            unsaved.append(_name_file(path, reason))

        files: list[tuple[int, bytes, os.stat_result]] = []
        for count, (path, found) in enumerate(self._walk()):
            if count >= MAX_FILES:
                leave_out(path, f"the work directory holds more than {MAX_FILES:,} files")
                continue
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFREG:
                files.append((found.st_size, path, found))
            elif kind == stat.S_IFDIR:
                entries.append(SavedFile(path, found.st_mode, found.st_mtime_ns))
            elif kind == stat.S_IFLNK:
                target = os.readlink(self._full(path))
                entries.append(SavedFile(path, found.st_mode, 0, BlobRefs(inline=target)))
            else:
                leave_out(path, f"{_KINDS.get(kind, 'what it is')} can't be saved")
        left = MAX_BYTES
        known: dict[bytes, _Known] = {}
        # Small files first: so that one that is too large takes no other with it.
        for size, path, found in sorted(files, key=lambda each: each[:2]):
            if size > left:
                leave_out(
                    path,
                    f"with {size:,} bytes it does not fit: a checkpoint holds {MAX_BYTES:,} bytes of files",
                )
                continue
            try:
                content = self._save_content(path, found, collector, known)
            except OSError as error:
                leave_out(path, f"it can't be read: {error.strerror}")
                continue
            left -= size
            entries.append(SavedFile(path, found.st_mode, found.st_mtime_ns, content))
        self._known = known
        entries.sort(key=lambda entry: entry.path)
        return SavedFiles(entries, kept), unsaved

    def _save_content(
        self, path: bytes, found: os.stat_result, collector: BlobCollector, known: dict[bytes, _Known]
    ) -> BlobRefs:
        state = _state_of(found)
        before = self._known.get(path)
        if before is not None and before.state == state and collector.has_all_of(before.content):
            known[path] = before
            return before.content
        with open(self._full(path), "rb", buffering=0, opener=_open_no_follow) as file:
            opened_at = time_ns()
            content = collector.add_file(file)
            unchanged = _state_of(os.fstat(file.fileno())) == state
        if self._times_tell and unchanged and opened_at - found.st_mtime_ns > _SETTLED_NS:
            known[path] = _Known(state, content)
        return content

    def _walk(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """Return what is in the directory, by relative path; a folder comes before what is in it.

        Other file systems that are mounted there are not looked into.
        """
        try:
            device = os.stat(self._path).st_dev
        except OSError:
            return  # the code has removed the directory itself
        waiting = [b""]
        while waiting:
            folder = waiting.pop()
            try:
                names = sorted(os.listdir(self._full(folder)))
            except OSError:
                continue  # it is gone, or may not be read
            for name in names:
                path = folder + b"/" + name if folder else name
                try:
                    found = os.lstat(self._full(path))
                except OSError:
                    continue
                if found.st_dev != device:
                    continue
                yield path, found
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(path)

    def _full(self, path: bytes) -> bytes:
        return self._path + b"/" + path if path else self._path

    # --- restoring -----------------------------------------------------------------------------------

    def restore(self, saved: SavedFiles, blobs: Mapping[str, bytes]) -> list[Unsaved]:
        """Make the directory what it was, and say what could not be restored."""
        self._known = {}
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        failed: list[Unsaved] = []
        wanted = {entry.path: entry for entry in saved.entries}
        self._remove_unknown(wanted, saved.kept)
        folders: list[SavedFile] = []
        for entry in saved.entries:  # sorted: a folder comes before what is in it
            try:
                self._restore_entry(entry, blobs)
            except (OSError, LookupError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                failed.append(_name_file(entry.path, f"it can't be restored: {reason}"))
            else:
                if stat.S_ISDIR(entry.mode):
                    folders.append(entry)
        # From the inside out: what is put into a folder changes its time, and its mode may forbid it.
        for entry in reversed(folders):
            try:
                self._set_attributes(self._full(entry.path), entry)
            except OSError as error:
                failed.append(_name_file(entry.path, f"its mode can't be restored: {error.strerror}"))
        return failed

    def _remove_unknown(self, wanted: Mapping[bytes, SavedFile], kept: list[bytes]) -> None:
        """Remove what was not there, except for what could not be saved and the folders that lead to it."""
        leading = {path[:at] for path in kept for at in _folder_ends(path)}
        leading.update(kept)
        # From the inside out: a folder is empty by then.
        for path, found in reversed(list(self._walk())):
            entry = wanted.get(path)
            if path in leading or (entry and stat.S_IFMT(entry.mode) == stat.S_IFMT(found.st_mode)):
                continue
            full = self._full(path)
            try:
                if stat.S_ISDIR(found.st_mode):
                    from shutil import rmtree

                    rmtree(full)
                else:
                    os.unlink(full)
            except OSError:
                continue  # what should be there instead is then reported

    def _restore_entry(self, entry: SavedFile, blobs: Mapping[str, bytes]) -> None:
        full = self._full(entry.path)
        if stat.S_ISDIR(entry.mode):
            try:
                os.mkdir(full, 0o700)
            except FileExistsError:
                os.chmod(full, 0o700)
        elif stat.S_ISLNK(entry.mode):
            if not os.path.islink(full) or os.readlink(full) != entry.content.inline:
                _unlink_if_there(full)
                os.symlink(entry.content.inline, full)
        else:
            data = join_blobs(entry.content, blobs)
            if not self._holds(full, data):
                self._replace(full, data)
            self._set_attributes(full, entry)

    @staticmethod
    def _holds(full: bytes, data: bytearray) -> bool:
        """Return whether a file has this content already: then those who have it open keep it."""
        try:
            with open(full, "rb", opener=_open_no_follow) as file:
                return os.fstat(file.fileno()).st_size == len(data) and bytearray(file.read()) == data
        except OSError:
            return False

    @staticmethod
    def _replace(full: bytes, data: bytearray) -> None:
        new = os.path.join(os.path.dirname(full), sha256(full).hexdigest()[:16].encode() + _NEW_SUFFIX)
        _unlink_if_there(new)
        try:
            with open(new, "xb") as file:
                file.write(data)
            os.replace(new, full)
        except OSError:
            _unlink_if_there(new)
            raise

    @staticmethod
    def _set_attributes(full: bytes, entry: SavedFile) -> None:
        os.chmod(full, stat.S_IMODE(entry.mode))
        os.utime(full, ns=(entry.mtime_ns, entry.mtime_ns))


def _state_of(found: os.stat_result) -> _State:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _folder_ends(path: bytes) -> Iterator[int]:
    at = path.find(b"/")
    while at >= 0:
        yield at
        at = path.find(b"/", at + 1)


def _open_no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _unlink_if_there(path: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _name_file(path: bytes, reason: str) -> Unsaved:
    return Unsaved(f"file {encodable(os.fsdecode(path))!r}", "file", reason)
