"""`Out` and `_` keep what the newest cells gave, whatever the code does to them."""

import copy
import pickle

from pyrepl3_worker.namespace import NamespaceManager

LIMIT = 1000


def test_out_keeps_the_newest_results() -> None:
    namespace = NamespaceManager()
    for number in range(1, 2 * LIMIT + 1):
        namespace.record_output(number, f"value {number}")
    out = namespace.namespace["Out"]
    assert list(out) == list(range(LIMIT + 1, 2 * LIMIT + 1))
    assert out[2 * LIMIT] == namespace.namespace["_"]


def test_out_stays_bounded_when_the_code_deletes_and_sets_results_itself() -> None:
    namespace = NamespaceManager()
    out = namespace.namespace["Out"]
    for number in range(1, 5 * LIMIT):
        namespace.record_output(number, f"value {number}")
        if number % 7 == 0:
            out.clear()
        out[number] = "set again"
        out[-number] = "the code's own"
        if number % 1500 == 0:
            out.update(dict.fromkeys(range(-9000, -7000), "many at once"))
            out[number] = "set again"
            out[10 * LIMIT + number] = "one more"
        assert len(out) <= LIMIT
    assert out[5 * LIMIT - 1] == "set again"


def test_a_name_that_the_code_has_bound_is_left_alone_until_it_is_deleted() -> None:
    namespace = NamespaceManager()
    names = namespace.namespace
    namespace.record_output(1, "one")
    names["_"] = "mine"
    namespace.record_output(2, "two")
    assert (names["_"], names["__"]) == ("mine", "one")
    del names["_"]
    namespace.record_output(3, "three")
    assert (names["_"], names["__"], names["___"]) == ("three", "two", "one")


def test_values_are_shifted_through_three_names() -> None:
    namespace = NamespaceManager()
    for number, value in enumerate("abcd", 1):
        namespace.record_output(number, value)
    assert [namespace.namespace[name] for name in ("_", "__", "___")] == ["d", "c", "b"]


def test_out_can_be_copied_and_pickled() -> None:
    namespace = NamespaceManager()
    namespace.record_output(1, "one")
    out = namespace.namespace["Out"]
    assert copy.copy(out) == copy.deepcopy(out) == pickle.loads(pickle.dumps(out)) == {1: "one"}
