"""Copies in chunks, their holes and their ends, and files that appear when they are whole."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrepl3_client._files import actions, transfer
from pyrepl3_client._files.transfer import CHUNK, NewFile, ShrunkError, Stop, copy, read_all
from pyrepl3_client._files.view import FileView, Folders

PATTERN = bytes(range(256)) * 64


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A folder's descriptor, of the kind that sessions have."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def copied(path: Path, stop: Stop | None = None) -> Path:
    """Copy a file beside itself."""
    target = path.with_suffix(".copy")
    source = os.open(path, os.O_RDONLY)
    out = os.open(target, os.O_CREAT | os.O_WRONLY)
    try:
        copy(source, out, os.fstat(source).st_size, stop or Stop())
    finally:
        os.close(source)
        os.close(out)
    return target


@pytest.mark.parametrize("size", [0, 1, 4095, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_copy_is_exact_at_every_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes((PATTERN * (size // len(PATTERN) + 1))[:size])
    assert copied(path).read_bytes() == path.read_bytes()


def test_holes_stay_holes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.seek(100 * 2**20)
        file.write(PATTERN)
        file.truncate(300 * 2**20)
    target = copied(path)
    assert target.stat().st_size == 300 * 2**20
    assert target.stat().st_blocks * 512 < 2**20
    with target.open("rb") as file:
        assert os.pread(file.fileno(), len(PATTERN) + 2, 100 * 2**20 - 1) == b"\0" + PATTERN + b"\0"


def test_it_works_where_the_kernel_copies_nothing_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "sendfile", refuse)
    path = tmp_path / "file"
    path.write_bytes(PATTERN * 700)
    assert copied(path).read_bytes() == PATTERN * 700


def test_a_stopped_copy_ends_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PATTERN)
    stop = Stop()
    stop.request(KeyError("first"))
    stop.request(ValueError("second"))
    with pytest.raises(KeyError, match="first"):
        copied(path, stop)


class Shrinking(Stop):
    """Cuts the file that is copied when it is asked whether to stop."""

    def __init__(self, path: Path, size: int) -> None:
        """Cut the file to `size`."""
        super().__init__()
        self._path, self._size = path, size

    def check(self) -> None:
        """Cut it."""
        os.truncate(self._path, self._size)


@pytest.mark.parametrize("size", [0, 5])
def test_a_file_that_shrinks_meanwhile_is_an_error_and_no_zeros(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(PATTERN)
    with pytest.raises(ShrunkError):
        copied(path, Shrinking(path, size))
    path.write_bytes(PATTERN)
    with path.open("rb") as file, pytest.raises(ShrunkError):
        read_all(file.fileno(), len(PATTERN), Shrinking(path, size))


def test_a_file_that_grows_after_it_was_measured_gives_no_more_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(PATTERN)
    number = path.stat().st_ino
    measure = os.fstat

    def measure_and_grow(fd: int) -> os.stat_result:
        found = measure(fd)
        if found.st_ino == number:
            with path.open("ab") as file:
                file.write(PATTERN)
        return found

    fds = [os.open(tmp_path, os.O_PATH | os.O_DIRECTORY) for _ in range(2)]
    work_paths = (os.fsencode(tmp_path),)
    view = FileView(Folders(root=fds[0], work=fds[1], own=-1, work_paths=work_paths, confined=False))
    most = 2 * len(PATTERN)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", measure_and_grow)
        content = actions.read(view, "file", most, Stop())
        path.write_bytes(PATTERN)
        actions.download(view, "file", str(tmp_path / "copy"), most, Stop())
    view.close()
    assert content == (tmp_path / "copy").read_bytes() == PATTERN * 2


def names(folder: int) -> list[str]:
    return sorted(os.listdir(f"/proc/self/fd/{folder}"))


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_new_file_is_there_when_it_is_whole(
    folder: int, monkeypatch: pytest.MonkeyPatch, *, unnamed: bool
) -> None:
    if not unnamed:
        original = os.open

        def without_tmpfile(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "no")
            return original(path, flags, *args, **kwargs)

        monkeypatch.setattr(transfer.os, "open", without_tmpfile)
    for content in (b"first", b"second"):
        file = NewFile(folder, b"name", 0o640)
        os.write(file.fd, content)
        before = names(folder)
        assert len(before) == (content == b"second") + (not unnamed)
        file.publish(None)
        file.close()
        assert names(folder) == ["name"]
        assert Path(f"/proc/self/fd/{folder}/name").read_bytes() == content
    given_up = NewFile(folder, b"name", 0o640)
    os.write(given_up.fd, b"third")
    given_up.close()
    assert names(folder) == ["name"]
    assert Path(f"/proc/self/fd/{folder}/name").read_bytes() == b"second"


def test_a_new_file_that_cannot_take_its_name_leaves_nothing(folder: int) -> None:
    os.mkdir(b"name", dir_fd=folder)
    file = NewFile(folder, b"name", 0o640)
    with pytest.raises(IsADirectoryError):
        file.publish(None)
    file.close()
    assert names(folder) == ["name"]
