"""Copies of any size, in chunks and with flat memory, and new files that appear when they are whole."""

import errno
import os
import secrets
from contextlib import suppress
from io import BytesIO
from typing import Final

CHUNK: Final = 4 * 1024 * 1024
"""Bytes between two looks at whether to stop: some milliseconds."""
_NO_UNNAMED: Final = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL))
"""What file systems (and old kernels) without O_TMPFILE answer."""
_NO_SENDFILE: Final = frozenset((errno.EINVAL, errno.ENOSYS))
_PERMISSIONS: Final = 0o777


class Stop:
    """Tells a thread that copies to end, from the event loop's thread."""

    __slots__ = ("_error",)

    def __init__(self) -> None:
        """Go on, until `request`."""
        self._error: BaseException | None = None

    def request(self, error: BaseException) -> None:
        """Have `check` raise an error. The first one counts."""
        if self._error is None:
            self._error = error

    def check(self) -> None:
        """Raise what `request` was given, if it was."""
        if self._error is not None:
            raise self._error


class ShrunkError(Exception):
    """A file became shorter while it was read: what was read is no state that it ever had."""


class NewFile:
    """A file that appears in a folder under its name when it is whole, in the place of an earlier one.

    Until then it has no name where the file system allows that, so nothing is left of it whatever happens,
    and code that may write to the folder cannot reach it.
    """

    def __init__(self, folder: int, name: bytes, permissions: int) -> None:
        """Begin a file.

        Args:
            folder: a descriptor of the folder, which stays the caller's; one with O_PATH will do.
            name: its name there, of one part.
            permissions: its mode, from which the umask is taken.

        Raises:
            OSError: it cannot be made.
        """
        self._folder = folder
        self._name = name
        self._unnamed = True
        self._temporary = b".pyrepl3-" + secrets.token_hex(8).encode()
        try:
            self.fd = os.open(
                ".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, permissions & _PERMISSIONS, dir_fd=folder
            )
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
            self._unnamed = False
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
            self.fd = os.open(self._temporary, flags, permissions & _PERMISSIONS, dir_fd=folder)

    def publish(self, mode: int | None) -> None:
        """Give it its name, and the exact `mode`, if there is one.

        Raises:
            OSError: it cannot have it: the folder is gone, or something stands there that is no file.
        """
        if mode is not None:
            os.fchmod(self.fd, mode & _PERMISSIONS)
        if self._unnamed:
            # A file without a name can only take one that is free.
            os.link(
                f"/proc/self/fd/{self.fd}", self._temporary, dst_dir_fd=self._folder, follow_symlinks=True
            )
            self._unnamed = False
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._unnamed = True  # the temporary name is gone

    def close(self) -> None:
        """Close it; unless it was published, nothing is left of it."""
        os.close(self.fd)
        if not self._unnamed:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)


def copy(source: int, target: int, size: int, stop: Stop) -> None:
    """Copy the beginning of a file, with its holes as holes.

    Args:
        source: a regular file, whose position is the callee's.
        target: an empty file.
        size: bytes, as many as the file had when it was judged: its code may make it larger at any time.
        stop: ends the copy early.

    Raises:
        ShrunkError: the source became shorter meanwhile.
        OSError: a read or a write failed.
    """
    at = 0
    while at < size:
        stop.check()
        begin, end = _next_data(source, at, size)
        os.lseek(target, begin, os.SEEK_SET)
        at = begin
        while at < end:
            stop.check()
            sent = _send(source, target, at, min(CHUNK, end - at))
            if not sent:
                raise ShrunkError
            at += sent
    if os.fstat(source).st_size < size:
        raise ShrunkError  # its missing end looked like a hole
    os.ftruncate(target, size)


def _next_data(source: int, at: int, size: int) -> tuple[int, int]:
    """Return where the next data begins and ends; `size` twice if there is none."""
    try:
        begin = os.lseek(source, at, os.SEEK_DATA)
        return min(begin, size), min(os.lseek(source, begin, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno == errno.EINVAL:
            return at, size  # a file system that knows no holes
        raise


def _send(source: int, target: int, at: int, count: int) -> int:
    """Copy up to `count` bytes at a position, in the kernel where it can; return how many."""
    try:
        return os.sendfile(target, source, at, count)
    except OSError as error:
        if error.errno not in _NO_SENDFILE:
            raise
    data = os.pread(source, count, at)
    write_all(target, memoryview(data))
    return len(data)


def write_all(target: int, data: memoryview) -> None:
    """Write bytes to a file."""
    while data:
        data = data[os.write(target, data) :]


def write_from(data: memoryview, target: int, stop: Stop) -> None:
    """Write bytes to a file in chunks; `stop` ends that early."""
    for begin in range(0, len(data), CHUNK):
        stop.check()
        write_all(target, data[begin : begin + CHUNK])


def read_all(source: int, size: int, stop: Stop) -> bytes:
    """Return the first `size` bytes of a file; see `copy`.

    Raises:
        ShrunkError: it became shorter meanwhile.
    """
    content = BytesIO()
    while content.tell() < size:
        stop.check()
        data = os.pread(source, min(CHUNK, size - content.tell()), content.tell())
        if not data:
            raise ShrunkError
        content.write(data)
    return content.getvalue()
