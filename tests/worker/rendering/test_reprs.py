"""The reprs of values of every kind, also of those whose own `__repr__` misbehaves."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyrepl3_worker.rendering.reprs import bounded_repr, safe_repr, type_name

ROOM = 2**20

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner)
        | st.frozensets(st.integers())
        | st.sets(st.text(max_size=3))
    ),
    max_leaves=30,
)


class Says:
    """Its repr does what the test wants."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do

    def __repr__(self) -> str:
        return self.do()


def raising(error: BaseException) -> Callable[[], str]:
    def do() -> str:
        raise error

    return do


@given(plain)
def test_what_fits_is_the_repr_itself(value: object) -> None:
    shown, truncated = bounded_repr(value, ROOM)
    assert shown == repr(value).encode("utf-8", "backslashreplace").decode()
    assert not truncated


@given(plain, st.integers(64, 300))
def test_the_limit_holds_for_every_value_and_nothing_is_cut_unsaid(value: object, limit: int) -> None:
    shown, truncated = bounded_repr(value, limit)
    assert len(shown) <= limit
    shown.encode("utf-8")
    assert truncated == (shown != repr(value).encode("utf-8", "backslashreplace").decode())


@given(plain, st.integers(64, 300))
@example([(None, {""})], 64)
def test_a_safe_repr_of_built_in_values_is_the_same(value: object, limit: int) -> None:
    assert len(safe_repr(value, limit)) <= limit
    whole = repr(value).encode("utf-8", "backslashreplace").decode()
    if len(whole) < 16:
        assert safe_repr(value, limit) == whole


def test_a_long_text_keeps_head_and_tail_and_says_how_much_is_gone() -> None:
    shown, truncated = bounded_repr(Says(lambda: "a" * 500 + "z" * 500), 100)
    head, marker, tail = shown.partition("… 924 characters cut …")
    assert marker
    assert set(head) == {"a"}
    assert set(tail) == {"z"}
    assert len(head) + len(tail) == 76
    assert truncated


def test_a_long_str_is_quoted_at_both_ends() -> None:
    shown, truncated = bounded_repr("é" * 10_000, 100)
    assert shown.startswith("'éé")
    assert shown.endswith("éé'")
    assert truncated


def test_a_long_list_shows_both_ends() -> None:
    shown, truncated = bounded_repr(list(range(10_000)), 70)
    assert shown == "[0, 1, 2, 3, 4, 5, 6, … 9,989 items cut …, 9996, 9997, 9998, 9999]"
    assert truncated


def test_a_long_dict_shows_both_ends() -> None:
    shown, _ = bounded_repr({n: str(n) for n in range(1000)}, 80)
    assert shown.startswith("{0: '0', 1: '1', ")
    assert shown.endswith(", 998: '998', 999: '999'}")
    assert "items cut" in shown


def test_a_long_set_shows_some_of_it() -> None:
    shown, _ = bounded_repr(set(range(1000)), 70)
    assert shown.startswith("{")
    assert shown.endswith(" items cut …}")
    assert bounded_repr(frozenset(range(1000)), 70)[0].startswith("frozenset({")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: list(range(3_000_000)), id="a list of millions"),
        pytest.param(lambda: [["y" * 10**7] * 50], id="few members, all of them huge"),
        pytest.param(lambda: "x" * 50_000_000, id="a huge str"),
        pytest.param(lambda: b"x" * 50_000_000, id="huge bytes"),
        pytest.param(lambda: bytearray(50_000_000), id="a huge bytearray"),
        pytest.param(lambda: {n: [n] * 10 for n in range(300_000)}, id="a dict of lists"),
    ],
)
def test_the_whole_text_of_a_huge_value_is_never_built(make: Callable[[], object]) -> None:
    import tracemalloc

    value = make()
    tracemalloc.start()
    try:
        shown, truncated = bounded_repr(value, 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(shown) <= 10_000
    assert truncated
    assert peak < 2_000_000


def test_a_list_that_holds_itself_twice_at_each_level_ends_soon() -> None:
    doubled: list[Any] = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    shown, truncated = bounded_repr(doubled, 1000)
    assert len(shown) <= 1000
    assert truncated


def test_a_value_that_holds_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert bounded_repr(loop, 100) == ("[1, [...]]", False)
    table: dict[str, Any] = {"a": 1}
    table["me"] = table
    assert safe_repr(table, 100) == "{'a': 1, 'me': {...}}"


def test_a_very_deep_list_is_told_of() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    shown, _ = bounded_repr(deep, ROOM)
    assert shown.startswith("<list object; repr failed: RecursionError: ")
    assert len(bounded_repr(deep, 100)[0]) <= 100


def test_a_repr_that_raises_is_told_of() -> None:
    shown, truncated = bounded_repr(Says(raising(ValueError("no"))), 100)
    assert shown == "<Says object; repr failed: ValueError: no>"
    assert not truncated
    assert bounded_repr([Says(raising(KeyError("k")))], 100)[0] == "<list object; repr failed: KeyError: 'k'>"


def test_a_repr_that_gives_no_text_is_told_of() -> None:
    shown, _ = bounded_repr(Says(lambda: 3), 200)
    assert shown.startswith("<Says object; repr failed: TypeError: __repr__ returned non-string")


def test_an_exception_whose_text_raises_is_told_of_too() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise LookupError

    shown, _ = bounded_repr(Says(raising(MuteError())), 100)
    assert shown == "<Says object; repr failed: MuteError (its text raises LookupError)>"


def test_a_repr_that_recurses_for_ever_is_told_of() -> None:
    itself = Says(lambda: repr(itself))
    shown, _ = bounded_repr(itself, 200)
    assert shown.startswith("<Says object; repr failed: RecursionError: ")


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, SystemExit, TimeoutError])
def test_what_a_cancel_raises_in_a_repr_goes_through(error: type[BaseException]) -> None:
    with pytest.raises(error):
        bounded_repr([Says(raising(error()))], 100)


def test_lone_surrogates_are_escaped_and_the_limit_still_holds() -> None:
    shown, _ = bounded_repr(Says(lambda: "<\ud800>"), 100)
    assert shown == "<\\ud800>"
    shown, truncated = bounded_repr(Says(lambda: "\ud800" * 90), 100)
    shown.encode("utf-8")
    assert len(shown) <= 100
    assert truncated


def test_a_repr_with_a_str_of_its_own_kind_is_no_trap() -> None:
    class Liar(str):
        __slots__ = ()

        def __len__(self) -> int:
            return 0

    shown, truncated = bounded_repr(Says(lambda: Liar("x" * 500)), 100)
    assert type(shown) is str
    assert len(shown) <= 100
    assert truncated


def test_an_int_of_more_digits_than_the_interpreter_writes_is_hexadecimal() -> None:
    huge = 10 ** (sys.get_int_max_str_digits() + 100)
    assert bounded_repr(huge, ROOM) == (hex(huge), False)


def test_subclasses_of_containers_show_themselves() -> None:
    ordered: OrderedDict[str, int] = OrderedDict(a=1)
    assert bounded_repr(ordered, 100) == (repr(ordered), False)


def test_a_safe_repr_calls_nothing_of_the_users() -> None:
    called: list[str] = []

    class Meta(type):
        def __repr__(cls) -> str:
            called.append("metaclass")
            return "?"

        @property
        def __name__(cls) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
            called.append("name")
            return "?"

    class Loud(metaclass=Meta):
        def __repr__(self) -> str:
            called.append("repr")
            return "?"

        @property
        def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            called.append("class")
            return str

    class Listy(list[int]):
        def __repr__(self) -> str:
            called.append("listy")
            return "?"

        def __len__(self) -> int:
            called.append("len")
            return 0

    shown = safe_repr([Loud(), Loud, {"k": (Listy(), len)}, lambda: 0, sys], 300)
    assert shown == (
        "[<Loud object>, <class 'Loud'>, {'k': (<Listy object>, <function len>)}, "
        "<function test_a_safe_repr_calls_nothing_of_the_users.<locals>.<lambda>>, <module 'sys'>]"
    )
    assert type_name(Loud()) == "Loud"
    assert not called
