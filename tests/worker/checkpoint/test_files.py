"""Open files in a new worker: as they looked, at their place, with what is in them."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.checkpoint_namespaces import Worker


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


CONTENT = "one\r\ntwo\nthree\n"
MODES = ("r", "r+", "w", "w+", "x", "x+", "a", "a+", "wt", "rb", "rb+", "wb", "wb+", "xb", "ab", "ab+", "w+b")
LOOK = """[
    f.mode, f.name, f.tell(), f.readable(), f.writable(), type(f).__name__,
    getattr(f, "line_buffering", None), getattr(f, "write_through", None),
    getattr(f, "encoding", None), getattr(f, "errors", None),
]"""


def content(name: str) -> bytes:
    return Path(name).read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_file_has_the_mode_the_place_and_the_content_that_it_had(mode: str) -> None:
    if "x" not in mode:
        Path("f").write_bytes(CONTENT.encode())
    binary = "b" if "b" in mode else ""
    worker = Worker(f"f = open('f', {mode!r})")
    if worker.value("f.readable()") and mode[0] == "r":
        worker.run("f.read(5)")
    if worker.value("f.writable()"):
        worker.run(f"f.seek(f.tell()); f.write({binary}'X1\\n'); f.flush()")
    before, look = content("f"), worker.value(LOOK)
    again = worker.reborn()
    assert content("f") == before
    assert again.value(LOOK) == look
    if worker.value("f.writable()"):
        again.run(f"f.write({binary}'Y2'); f.flush()")
        place = look[2] if mode[0] != "a" else len(before)
        assert content("f") == before[:place] + b"Y2" + before[place + 2 :]
    worker.run("f.close()")
    again.run("f.close()")


NEWLINES = (None, "", "\n", "\r", "\r\n")


@pytest.mark.parametrize(("newline", "mode"), [*itertools.product(NEWLINES, ("r", "r+", "w", "a", "w+"))])
def test_lines_end_as_they_did(newline: str | None, mode: str) -> None:
    """However much was read before: what was read last looks like the setting."""
    for text, count in itertools.product((CONTENT, "\n", "\r\n", "\n\n", ""), (0, 1, 9)):
        Path("f").write_bytes(text.encode())
        opened = f"f = open('f', {mode!r}, newline={newline!r})"
        worker = Worker(opened)
        use = "f.seek(f.tell()); f.write('a\\nb'); f.flush()" if mode != "r" else ""
        if mode[0] == "r":
            for _ in range(count):
                worker.run("f.readline()")
        again = worker.reborn()
        before = content("f")
        if mode[0] == "r":
            assert again.value("f.read()") == worker.value("f.read()")
        if use:
            worker.run(use)
            expected = content("f")
            Path("f").write_bytes(before)
            again.run(use)
            assert content("f") == expected, (text, count)
        worker.run("f.close()")
        again.run("f.close()")


@pytest.mark.parametrize("options", ["buffering=100", "buffering=1", "encoding='utf-16', errors='replace'"])
@pytest.mark.parametrize("mode", ["r", "w"])
def test_buffering_and_encoding_are_as_they_were(options: str, mode: str) -> None:
    Path("f").write_text("äöü\n" * 100, "utf-16")
    worker = Worker(f"f = open('f', {mode!r}, {options})")
    if mode == "w":
        worker.run("f.write('ä'); f.flush()")
    look = f"{LOOK}, f.buffer.__sizeof__()"
    again = worker.reborn()
    assert again.value(look) == worker.value(look)
    if mode == "w":
        again.run("f.write('b\\n'); f.flush()")
        assert Path("f").read_text(worker.value("f.encoding")) == "äb\n"
    worker.run("f.close()")
    again.run("f.close()")


@pytest.mark.parametrize("mode", ["r", "w", "a", "x", "wb", "ab"])
def test_a_file_that_is_gone_is_named_and_not_made(mode: str) -> None:
    Path("g").touch()
    worker = Worker(f"f = open('f' if {mode!r} == 'x' else 'g', {mode!r})")
    name = worker.value("f.name")
    answer = worker.take()
    Path(name).unlink()
    restored = Worker().restore(answer, worker.store)
    assert [each.name for each in restored.unsaved] == ["f"]
    assert "FileNotFoundError" in restored.unsaved[0].reason
    assert not Path(name).exists()
    worker.run("f.close()")
