"""The session's own work directory: saved, and made again as it was."""

import os
import socket
import stat
from pathlib import Path

import pytest

from pyrepl3_worker.checkpoint import work_directory
from pyrepl3_worker.checkpoint.manifest import BlobCollector, SavedFiles
from pyrepl3_worker.checkpoint.work_directory import WorkDirectory


class Saved:
    """A directory, and what was saved of it so far."""

    def __init__(self, path: Path, *, times_tell: bool = True) -> None:
        self.directory = WorkDirectory(str(path), times_tell=times_tell)
        self.blobs: dict[str, bytes] = {}

    def save(self) -> tuple[SavedFiles, dict[str, str], list[str]]:
        """Save; return the files, what could not be saved and why, and the digests that are new."""
        collector = BlobCollector(list(self.blobs), chunk=1024)
        files, unsaved = self.directory.save(collector)
        self.blobs |= collector.blobs
        return files, {each.name: each.reason for each in unsaved}, list(collector.blobs)


def contents(path: Path) -> dict[str, object]:
    """Return all that is below a directory: kinds, modes, times and contents."""
    found: dict[str, object] = {}
    for each in sorted(path.rglob("*")):
        status = each.lstat()
        what: object = (
            os.readlink(each) if each.is_symlink() else each.read_bytes() if each.is_file() else None
        )
        link = stat.S_ISLNK(status.st_mode)
        found[str(each.relative_to(path))] = (stat.S_IFMT(status.st_mode), what) if link else (
            status.st_mode, status.st_mtime_ns, what,
        )  # fmt: skip
    return found


def fill(path: Path) -> None:
    """Put one of each kind into a directory."""
    (path / "empty").mkdir()
    (path / "deep/er").mkdir(parents=True)
    (path / "deep/er/data.bin").write_bytes(os.urandom(5000))
    (path / "small.txt").write_text("small")
    (path / "none").touch()
    (path / "run.sh").write_text("#!/bin/sh\n")
    (path / "run.sh").chmod(0o751)
    (path / "link").symlink_to("deep/er/data.bin")
    (path / "dangling").symlink_to("/nowhere")
    (path / os.fsdecode(b"n\xffme")).write_text("no text")
    (path / "deep").chmod(0o500)
    os.utime(path / "small.txt", ns=(1_000_000_007, 2_000_000_009))


@pytest.mark.parametrize("damage", ["nothing", "all is gone", "all is changed", "kinds are swapped"])
def test_a_directory_is_what_it_was(tmp_path: Path, damage: str) -> None:
    fill(tmp_path)
    before, saved = contents(tmp_path), Saved(tmp_path)
    files, unsaved, _ = saved.save()
    (tmp_path / "deep").chmod(0o700)
    match damage:
        case "all is gone":
            for each in sorted(tmp_path.rglob("*"), reverse=True):
                each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()
        case "all is changed":
            for each in tmp_path.rglob("*"):
                if each.is_file():
                    each.write_text("changed")
            (tmp_path / "another").mkdir()
            (tmp_path / "another/file").touch()
            (tmp_path / "deep/er/more").symlink_to("data.bin")
        case "kinds are swapped":
            (tmp_path / "small.txt").unlink()
            (tmp_path / "small.txt").mkdir()
            (tmp_path / "small.txt/inside").touch()
            (tmp_path / "empty").rmdir()
            (tmp_path / "empty").symlink_to("/etc")
            (tmp_path / "link").unlink()
            (tmp_path / "link").mkdir()
        case _:
            pass
    assert saved.directory.restore(files, saved.blobs) == []
    assert unsaved == {}
    assert contents(tmp_path) == before
    assert not list(Path("/etc").glob("*pyrepl3*"))


@pytest.mark.parametrize("times_tell", [True, False])
def test_only_what_has_changed_is_sent_again(tmp_path: Path, *, times_tell: bool) -> None:
    (tmp_path / "large").write_bytes(os.urandom(4096))
    os.utime(tmp_path / "large", (1, 1))
    saved = Saved(tmp_path, times_tell=times_tell)
    assert len(saved.save()[2]) == 4
    assert saved.save()[2] == []
    with open(tmp_path / "large", "r+b") as file:
        file.write(b"changed!")
    os.utime(tmp_path / "large", (1, 1))  # as if nothing had happened
    assert len(saved.save()[2]) == 1


def test_a_file_that_is_open_and_has_not_changed_stays_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\n")
    saved = Saved(tmp_path)
    files, _, _ = saved.save()
    with open(tmp_path / "log", "a") as log:
        assert saved.directory.restore(files, saved.blobs) == []
        log.write("second\n")
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_what_does_not_fit_is_named_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_directory, "MAX_BYTES", 1000)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/large").write_bytes(bytes(999))
    (tmp_path / "small").write_bytes(bytes(10))
    saved = Saved(tmp_path)
    files, unsaved, _ = saved.save()
    assert unsaved == {
        "file 'sub/large'": "with 999 bytes it does not fit: a checkpoint holds 1,000 bytes of files"
    }
    (tmp_path / "small").unlink()
    (tmp_path / "other").touch()
    assert saved.directory.restore(files, saved.blobs) == []
    assert sorted(contents(tmp_path)) == ["small", "sub", "sub/large"]


def test_what_is_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # an address of a socket may not be long
        server.bind("socket")
    _, unsaved, _ = Saved(tmp_path).save()
    assert unsaved == {
        "file 'fifo'": "a FIFO can't be saved",
        "file 'socket'": "a socket can't be saved",
    }


def test_a_lost_blob_is_named(tmp_path: Path) -> None:
    (tmp_path / "whole").write_text("whole")
    (tmp_path / "torn").write_bytes(os.urandom(3000))
    saved = Saved(tmp_path)
    files, _, digests = saved.save()
    (tmp_path / "torn").unlink()
    del saved.blobs[digests[1]]
    (lost,) = saved.directory.restore(files, saved.blobs)
    assert lost.name == "file 'torn'"
    assert "lacks blob" in lost.reason
    assert sorted(contents(tmp_path)) == ["whole"]
