"""Which names are saved together."""

from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_worker.checkpoint.grouping import groups_sharing_objects

names = st.sampled_from("abcdefg")


def test_names_that_share_nothing_stay_alone() -> None:
    assert groups_sharing_objects({"a": [1], "b": [2]}, {"a": ["b"]}) == [("a",), ("b",)]


def test_names_that_share_an_object_are_together_in_their_order() -> None:
    assert groups_sharing_objects({"b": [1], "x": [9], "a": [2, 1], "c": [2]}, {}) == [
        ("b", "a", "c"),
        ("x",),
    ]


def test_names_that_need_each_other_are_together() -> None:
    needs = {"a": ["b"], "b": ["c"], "c": ["a", "d"]}
    assert groups_sharing_objects({"a": [], "b": [], "c": [], "d": []}, needs) == [("a", "b", "c"), ("d",)]


def test_a_circle_through_a_shared_object_is_one_too() -> None:
    objects = {"a": [1], "b": [], "c": [1]}
    assert groups_sharing_objects(objects, {"a": ["b"], "b": ["c"]}) == [("a", "b", "c")]


def test_a_long_chain_of_needs_is_no_matter() -> None:
    chain = [f"n{number}" for number in range(5000)]
    needs = {name: [other] for name, other in pairwise(chain)}
    objects: dict[str, list[int]] = {name: [] for name in chain}
    assert len(groups_sharing_objects(objects, needs)) == 5000
    needs[chain[-1]] = [chain[0]]
    assert groups_sharing_objects(objects, needs) == [tuple(chain)]


@given(
    st.dictionaries(names, st.sets(st.integers(0, 6), max_size=2), min_size=1),
    st.dictionaries(names, st.sets(names, max_size=3)),
)
def test_groups_are_what_a_slow_search_finds(
    objects: dict[str, set[int]], needs: dict[str, set[str]]
) -> None:
    needs = {name: {o for o in others if o in objects} for name, others in needs.items() if name in objects}
    groups = groups_sharing_objects(objects, needs)
    assert sorted(name for group in groups for name in group) == sorted(objects)
    # Joining by shared objects and by "each needs the other", until nothing changes.
    label = {name: name for name in objects}
    changed = True
    while changed:
        changed = False
        for (one, mine), (other, theirs) in product(objects.items(), repeat=2):
            together = bool(mine & theirs)
            together |= reaches(one, other, needs, label) and reaches(other, one, needs, label)
            if together and label[one] != label[other]:
                gone, kept = label[one], label[other]
                label = {name: kept if found == gone else found for name, found in label.items()}
                changed = True
    slow = {frozenset(name for name in label if label[name] == group) for group in label.values()}
    assert {frozenset(group) for group in groups} == slow


def reaches(start: str, end: str, needs: dict[str, set[str]], label: dict[str, str]) -> bool:
    """Whether needs lead from one group to another, through groups."""
    waiting, seen = [label[start]], set[str]()
    while waiting:
        group = waiting.pop()
        if group in seen:
            continue
        seen.add(group)
        waiting += [label[other] for name in needs if label[name] == group for other in needs[name]]
    return label[end] in seen
