"""What a checkpoint sends, and what it does not send again."""

# ruff: noqa: E501 - tables, one case a line

import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.messages import Restore
from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
from pyrepl3_worker.checkpoint.manifest import CHUNK_BYTES, Manifest
from tests.helpers.checkpoint_namespaces import Worker


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def test_what_has_not_changed_is_not_sent_again() -> None:
    worker = Worker(
        "a = list(range(1000))\nb = list(range(2000))\ndef f(): return a\nclass C:\n def m(self): ..."
    )
    first = worker.take()
    assert len(first.blobs) >= 4
    second = worker.take()
    assert second.blobs == {}
    assert second.data == first.data
    worker.run("a.append(1)")
    third = worker.take()
    assert len(third.blobs) == 1
    assert third.data != first.data


def test_a_parent_that_has_nothing_gets_everything() -> None:
    worker = Worker("a = list(range(1000))\nb = 'x' * 10_000\ndef f(): return a")
    first = worker.take()
    worker.store.clear()
    assert worker.take().blobs == first.blobs


def test_a_checkpoint_of_a_restored_session_sends_next_to_nothing() -> None:
    worker = Worker(
        "a = list(range(1000))\nb = a\nc = {'k': 'v' * 500}\ndef f(n=3): return a\nclass C:\n def m(self): ...\ni = C()"
    )
    other = worker.reborn()
    assert other.take().blobs == {}


def test_small_values_stand_in_the_manifest() -> None:
    worker = Worker("\n".join(f"name_{n} = {n}" for n in range(200)))
    answer = worker.take()
    assert answer.blobs == {}
    assert len(answer.data) < 200 * 50


def test_a_changed_constant_is_seen_and_an_unchanged_one_is_not_looked_at() -> None:
    worker = Worker("x = 'a' * 1000\ny = (1, ('b' * 1000,))\nz = b'c' * 1000\ndef f(a=1): ...")
    worker.take()
    worker.run("x = 'A' * 1000\nf.__defaults__ = (2,)")
    assert len(worker.take().blobs) == 2
    worker.run("f.note = 'n'")
    other = worker.reborn()
    assert other.value("x[0], y[1][0][0], z[:1], f.__defaults__, f.note") == ("A", "b", b"c", (2,), "n")


def test_a_large_array_is_sent_by_its_changed_parts() -> None:
    numpy = pytest.importorskip("numpy")
    worker = Worker()
    worker.names["array"] = array = numpy.arange(3 * CHUNK_BYTES // 8 + 10)
    first = worker.take()
    assert sum(map(len, first.blobs.values())) == array.nbytes
    assert worker.take().blobs == {}
    array[0] = -1
    changed = worker.take().blobs
    assert [len(blob) for blob in changed.values()] == [CHUNK_BYTES]
    array.resize(5, refcheck=False)  # its memory is not kept locked
    other = worker.reborn()
    assert other.value("array.tolist()") == [-1, 1, 2, 3, 4]
    other.run("array[1] = 7")  # and it can be written to
    assert other.value("array.flags.owndata or array.base is not None")


def test_arrays_of_one_kind_are_not_thought_to_share() -> None:
    numpy = pytest.importorskip("numpy")
    worker = Worker("good = 1")
    worker.names |= {
        "a": numpy.zeros(3),
        "b": numpy.ones(3),
        "t": numpy.zeros((2, 3)).T,
        "o": numpy.array([[], 1], object),
    }
    found = msgspec.msgpack.decode(worker.take().data, type=Manifest)
    assert sorted(group.names for group in found.groups) == [("a",), ("b",), ("good",), ("o",), ("t",)]
    assert worker.reborn().value("(a.sum(), b.sum(), t.shape, o[1])") == (0, 3, (3, 2), 1)


def test_a_checkpoint_that_is_too_long_for_a_frame_comes_in_parts() -> None:
    code = "\n".join(f"x{n} = b'{n}' * 40_000" for n in range(8)) + "\nlast = [1]"
    worker = Worker(code, max_bytes=100_000)
    parts = [worker.take()]
    while not parts[-1].data:
        parts.append(worker.take())
    assert len(parts) > 2
    assert all(len(encode(part)) < 100_000 for part in parts)
    other = Worker()
    for part in parts[:-1]:
        ahead = other.checkpointer.restore(Restore(checkpoint_id="c", blobs=part.blobs))
        assert ahead.names == []
    restored = other.restore(parts[-1], parts[-1].blobs)
    assert not restored.unsaved
    assert other.value("(len(x7), last)") == (40_000, [1])


def test_parts_are_of_the_moment_of_the_first() -> None:
    worker = Worker("a = b'a' * 90_000\nb = b'b' * 90_000\nx = 1", max_bytes=100_000)
    first = worker.take()
    assert not first.data
    worker.run("x = 2")
    second = worker.take()
    other = Worker()
    other.restore(second, worker.store)
    assert other.value("x") == 1
    assert worker.take().data != second.data


def test_a_namespace_that_changes_while_it_is_saved_is_saved_all_the_same() -> None:
    worker = Worker(
        "class A:\n def __getstate__(self):\n  globals()['new'] = 1\n  globals().pop('gone', None)\na = A()\ngone = [1]\nz = 2"
    )
    assert worker.unsaved() == {}


def test_hidden_names_may_be_given_to_a_checkpointer_of_any_dict() -> None:
    names: dict[str, Any] = {"x": 1, "secret": object()}
    answer = Checkpointer(names, frozenset({"secret"})).create_checkpoint("c", [])
    other: dict[str, Any] = {}
    Checkpointer(other, frozenset({"secret"})).restore(Restore(checkpoint_id="c", data=answer.data))
    assert other == {"x": 1}
