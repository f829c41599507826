"""Restoring a checkpoint while some names are to be left as they are (`Restore.keep`)."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pyrepl3_schemas.messages import Checkpointed, Restore, Restored
from tests.helpers.checkpoint_namespaces import Worker

FAILS_TO_RESTORE = (
    "class A:\n"
    " def __setstate__(self, state): open('/dev/null', 'w').close(); raise ValueError('never')\n"
    "a = A()\na.x = 1\n"
)
"""What wants to write can't be tried before, so that it is saved."""


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def restore(into: Worker, answer: Checkpointed, blobs: dict[str, bytes], *keep: str) -> Restored:
    return into.checkpointer.restore(
        Restore(checkpoint_id="c", data=answer.data, blobs=blobs, keep=list(keep))
    )


def restore_around(code: str, made: str, *keep: str) -> tuple[Worker, Restored]:
    """Run code and take a checkpoint; restore it where other code has run, except the names to keep."""
    worker = Worker(code)
    answer = worker.take()
    other = Worker(made)
    return other, restore(other, answer, worker.store, *keep)


def unsaved(restored: Restored) -> list[str]:
    return [each.name for each in restored.unsaved]


@pytest.mark.parametrize(
    "code",
    [
        "x = 'saved'",
        "x = ['saved']",
        "x = y = ['saved']",
        "import math as x",
        "x = globals()",
        "x = __import__('threading').Lock()",
        "class x: pass",
        "z = 1",
    ],
)
def test_what_is_to_be_kept_is_left_as_it_is_whatever_was_saved(code: str) -> None:
    other, restored = restore_around(f"{code}\nother = 5", "x = [9]\nmine = x\nother = 6", "x")
    assert other.value("x") == [9]
    assert other.value("other") == 5
    assert "mine" not in other.names
    assert "x" not in [*restored.names, *unsaved(restored)]


def test_what_is_to_be_kept_and_not_there_stays_away() -> None:
    other, restored = restore_around("x = [1]\ny = 2", "", "x", "nowhere")
    assert "x" not in other.names
    assert (restored.names, restored.unsaved) == (["y"], [])


def test_what_fails_to_come_back_and_was_made_again_stays() -> None:
    worker = Worker(f"{FAILS_TO_RESTORE}y = [2]")
    answer = worker.take()
    other = Worker()
    assert unsaved(restore(other, answer, worker.store)) == ["a"]
    other.run("a = 'made again'\nkind = A\ny = 'as a by-product'")
    restored = restore(other, answer, worker.store, "a")
    assert other.value("(a, y)") == ("made again", [2])
    assert (restored.names, restored.unsaved) == (["y"], [])


def test_the_classes_of_the_first_restore_stay_beside_what_was_made_again() -> None:
    worker = Worker(f"{FAILS_TO_RESTORE}class B: pass\nb = B()")
    answer = worker.take()
    other = Worker()
    restore(other, answer, worker.store)
    other.run("a, B = A(), type('B', (), {})")
    assert restore(other, answer, worker.store, "a").names == ["B", "b"]
    assert other.value("(type(a) is A, type(b) is B)") == (True, True)


def test_what_is_kept_is_not_even_loaded() -> None:
    code = "class A:\n def __setstate__(self, state): loaded.append(1)\nloaded = []\na = A()\na.x = 1"
    other, _ = restore_around(code, "a = 'made again'", "a")
    assert other.value("(a, loaded)") == ("made again", [])


def test_a_module_that_is_gone_and_was_made_again_stays() -> None:
    sys.modules["gone_tomorrow"] = type(sys)("gone_tomorrow")
    try:
        worker = Worker("import gone_tomorrow\nx = 1")
        answer = worker.take()
    finally:
        del sys.modules["gone_tomorrow"]
    other = Worker("gone_tomorrow = 'made again'")
    restored = restore(other, answer, worker.store, "gone_tomorrow")
    assert other.value("(gone_tomorrow, x)") == ("made again", 1)
    assert (restored.names, restored.unsaved) == (["x"], [])


def test_names_that_shared_with_one_that_is_kept_come_back_as_they_were_saved() -> None:
    other, restored = restore_around("x = y = [1]\nz = {'x': x}", "x = [9]", "x")
    assert other.value("(x, y, z)") == ([9], [1], {"x": [1]})
    assert other.value("z['x'] is y and y is not x")
    assert sorted(restored.names) == ["y", "z"]
    # What is saved now is what is there now.
    last = other.reborn()
    assert last.value("z['x'] is y and y is not x and x == [9]")


def test_one_that_fails_because_of_a_kept_one_beside_it_is_reported_alone() -> None:
    other, restored = restore_around(f"{FAILS_TO_RESTORE}b = [a]", "a = 'made again'\nb = 'made too'", "a")
    assert other.value("a") == "made again"
    assert "b" not in other.names
    assert unsaved(restored) == ["b"]


def test_instances_and_functions_of_a_kept_class_are_of_that_one() -> None:
    code = "class A: kind = 'saved'\nclass B(A): pass\na, b = A(), B()\ndef make(): return A()"
    other, restored = restore_around(code, "class A: kind = 'kept'", "A")
    kept: Any = other.names["A"]
    assert other.value("(type(a), B.__bases__, a.kind, b.kind)") == (kept, (kept,), "kept", "kept")
    assert type(other.names["make"]()) is kept
    assert restored.unsaved == []


def test_instances_of_a_kept_class_that_is_not_there_come_back_with_the_saved_one() -> None:
    other, restored = restore_around("class A: kind = 'saved'\na = A()", "", "A")
    assert "A" not in other.names
    assert other.value("a.kind") == "saved"
    assert (restored.names, restored.unsaved) == (["a"], [])
