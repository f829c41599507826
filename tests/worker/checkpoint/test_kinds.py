"""Kinds of objects that plain pickle would restore as something else, without an error."""

import sys
from collections.abc import Iterator

import pytest

from tests.helpers.checkpoint_namespaces import Worker


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def test_annotations_and_the_docstring_come_back() -> None:
    worker = Worker("x: int = 3\n__doc__ = 'mine'")
    answer = worker.take()
    other = worker.reborn()
    assert other.value("__annotations__, __doc__") == ({"x": int}, "mine")
    worker.run("__doc__ = 'other'\n__annotations__['y'] = str")
    worker.restore(answer)
    assert worker.value("__annotations__, __doc__") == ({"x": int}, "mine")


def test_a_docstring_that_there_was_not_goes_and_leaves_none() -> None:
    worker = Worker("x = 1")
    answer = worker.take()
    assert worker.restore(answer).names == ["x"]
    worker.run("__doc__ = 'new'")
    worker.restore(answer)
    assert worker.value("__doc__") is None


def test_containers_that_fill_themselves_in_their_own_way_hold_what_they_held() -> None:
    worker = Worker(
        """
class Table(dict):
    def __setitem__(self, key, value): super().__setitem__(key, (value,))
class Slotted(Table):
    __slots__ = ("extra", "unset")
class Log(list):
    def append(self, item): super().append(("logged", item))
    def extend(self, items): raise AssertionError("never")
class Counted(list):
    def append(self, item): raise AssertionError("never")
    def __getstate__(self): return {"count": 7}
    def __setstate__(self, state): self.count = state["count"] + 1
table, slotted, log, counted = Table(), Slotted(), Log(), Counted([1])
table["a"] = slotted["a"] = 1
slotted.extra = table
log.append(1)
log.me = log
"""
    ).reborn()
    assert worker.value("table, slotted, log") == ({"a": (1,)}, {"a": (1,)}, [("logged", 1)])
    assert worker.value("slotted.extra is table and log.me is log and not hasattr(slotted, 'unset')")
    assert worker.value("list(counted), counted.count") == ([1], 8)
    worker.run("log.append(2)")
    assert worker.value("log[-1]") == ("logged", 2)


def test_arrays_that_look_into_one_another_still_do() -> None:
    pytest.importorskip("numpy")
    worker = Worker(
        """
import numpy as np
array = np.arange(10)
view, backwards, transposed = array[2:5], array[::-2], np.asfortranarray(np.arange(6).reshape(2, 3))
rows = transposed.T
inside = {"deep": array[7:]}
hidden = np.arange(20)
one, other = hidden[1:], hidden[2:]
frozen = array[:3]
frozen.flags.writeable = False
objects = np.array([[1], [2]], object)
part = objects[1:]
del hidden
"""
    )
    for _ in range(2):
        worker = worker.reborn()
        worker.run("array[:] = range(10)\nview[0] = 99\ninside['deep'][0] = 77\nrows[0, 1] = 55\none[1] = 33")
        assert worker.value("array[2], frozen[2], array[7]") == (99, 99, 77)
        assert worker.value("backwards.tolist()") == [9, 77, 5, 3, 1]
        assert worker.value("transposed[1, 0], other[0], frozen.flags.writeable") == (55, 33, False)
        assert worker.value("len(part)") == 1


def test_a_look_into_a_huge_array_that_nobody_names_does_not_drag_it_along() -> None:
    pytest.importorskip("numpy")
    worker = Worker("import numpy as np\nfew = np.arange(1_000_000)[:3]")
    answer = worker.take()
    assert sum(map(len, answer.blobs.values())) + len(answer.data) < 10_000
    assert worker.reborn().value("few.tolist()") == [0, 1, 2]
