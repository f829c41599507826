# ruff: noqa: E501 - a table, one kind a line
"""Iterators of `itertools`, made again without pickle's own support for them."""

import sys
import warnings
from collections.abc import Iterator

import pytest

from pyrepl3_worker.checkpoint.iterators import MAKERS
from tests.helpers.checkpoint_namespaces import Worker


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


ITERATORS = {
    "count": ["count()", "count(5)", "count(5, 2)", "count(10**30)", "count(-3, -1)", "count(0.5, 0.25)", "count(2**62, 2**62)"],
    "repeat": ["repeat('x')", "repeat('x', 7)", "repeat('x', 2)", "repeat([1], 3)"],
    "chain": ["chain()", "chain([1, 2], 'abc', [3])", "chain([], [], [5])", "chain.from_iterable([[1, 2], [3, 4, 5, 6]])", "chain(iter([1, 2]), [3])"],
    "starmap": ["starmap(pow, [(2, 3), (3, 2), (4, 1)])"],
    "filterfalse": ["filterfalse(None, [0, 1, 0, 2, 0])", "filterfalse(str.isdigit, 'a1b2c3')"],
    "compress": ["compress('abcdef', [1, 0, 1, 0, 1, 1])"],
}  # fmt: skip
CASES = [(made, taken) for each in ITERATORS.values() for made in each for taken in (0, 1, 2, 3)]


def test_each_maker_is_tried() -> None:
    assert {f"itertools.{name}" for name in ITERATORS} == MAKERS.keys()


@pytest.mark.parametrize(("made", "taken"), CASES)
def test_an_iterator_goes_on_at_its_place(made: str, taken: int) -> None:
    worker = Worker(
        f"from itertools import *\ni = {made}\nalso = [i]\nfor _ in range({taken}): next(i, None)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = worker.reborn()
    assert again.value("also[0] is i and type(i)") is worker.value("type(i)")
    rest = "list(islice(i, 5)), list(islice(also[0], 2))"
    assert again.value(rest) == worker.value(rest)


def test_what_it_goes_through_is_shared_still() -> None:
    worker = Worker(
        "from itertools import *\nsource = iter([1, 2, 3, 4])\ni = chain(source, 'a')\nnext(i)"
    ).reborn()
    assert worker.value("next(source), next(i), next(source), next(i)") == (2, 3, 4, "a")
