"""Makes iterators of `itertools` again at their place, without pickle, which can't from Python 3.14 on.

What they hold is what the garbage collector sees. Those whose place stands in numbers of C alone (`islice`,
`cycle`, `product`, …) are left to pickle, as long as that saves them, and are named afterwards.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from gc import get_referents
from typing import Any, Final, cast

from pyrepl3_worker.checkpoint.by_value import ReduceValue


def _held_by(iterator: object) -> list[Any]:
    held = get_referents(iterator)
    return held[1:] if held and held[0] is type(iterator) else held


def _reduce_count(count: "itertools.count[Any]") -> ReduceValue:
    held = _held_by(count)
    if len(held) == 2:
        return itertools.count, (held[0], held[1])
    # A small number is not an object.
    number = int(repr(count)[len("count(") : -1].partition(",")[0])
    return itertools.count, (number, *held)


def _reduce_repeat(repeat: "itertools.repeat[Any]") -> ReduceValue:
    (value,) = _held_by(repeat)
    counted: Any = repeat
    try:
        return itertools.repeat, (value, counted.__length_hint__())
    except TypeError:
        return itertools.repeat, (value,)  # without end


def _reduce_chain(chain: "itertools.chain[Any]") -> ReduceValue:
    held = _held_by(chain)
    return make_chain, tuple(held)


def make_chain(source: Iterable[Any] = (), active: Iterator[Any] | None = None) -> Iterator[Any]:
    """Make a chain of what is left of the iterator at hand, and of the iterables that come after it."""
    rest = itertools.chain.from_iterable(source)
    return rest if active is None else itertools.chain(active, rest)


def _reduce_with_function(iterator: Any) -> ReduceValue:
    source, function = _held_by(iterator)
    return cast("type[Any]", type(iterator)), (function, source)


def _reduce_compress(iterator: "itertools.compress[Any]") -> ReduceValue:
    data, selectors = _held_by(iterator)
    return itertools.compress, (data, selectors)


MAKERS: Final[dict[str, Callable[[Any], ReduceValue]]] = {
    "itertools.count": _reduce_count,
    "itertools.repeat": _reduce_repeat,
    "itertools.chain": _reduce_chain,
    "itertools.starmap": _reduce_with_function,
    "itertools.filterfalse": _reduce_with_function,
    "itertools.compress": _reduce_compress,
}
