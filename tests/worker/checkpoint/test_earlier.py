"""What could not be saved in time keeps its last saved value, and the report says so."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyrepl3_schemas.messages import Checkpointed, Restored
from pyrepl3_worker.checkpoint.checkpointer import Checkpointer
from pyrepl3_worker.checkpoint.time_budget import BudgetExceeded, TimeBudget
from tests.helpers.checkpoint_namespaces import HIDDEN, Worker


@pytest.fixture(autouse=True)
def restore_main_module() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


class LittleTime(TimeBudget):
    """Has no time for some values."""

    def __init__(self) -> None:
        super().__init__()
        self.too_slow: list[object] = []

    def run_data(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if any(argument is value for argument in arguments for value in self.too_slow):
            raise BudgetExceeded("it took longer than 2 s")
        return super().run_data(function, *arguments)


class Slow(Worker):
    """A worker that has no time to save some names."""

    def __init__(self, code: str = "") -> None:
        super().__init__(code)
        self.budget = LittleTime()
        self.checkpointer = Checkpointer(self.names, HIDDEN, budget=self.budget)

    def take_without(self, *names: str) -> Checkpointed:
        self.budget.too_slow = [self.names[name] for name in names]
        answer = self.take()
        self.budget.too_slow = []
        vars(self.checkpointer)["_slow_objects"].clear()  # it would not be tried for a while
        return answer

    def reborn_from(self, answer: Checkpointed) -> tuple["Slow", Restored]:
        other = Slow()
        other.store = self.store
        return other, other.restore(answer)


def reasons(report: Checkpointed | Restored) -> dict[str, tuple[str, bool]]:
    return {each.name: (each.reason, each.as_of is not None) for each in report.unsaved}


KEPT = ("it took longer than 2 s; it keeps its value as of cell 0", True)


def test_a_name_that_took_too_long_keeps_its_last_saved_value_and_is_named() -> None:
    worker = Slow("items, other = [1], [1]\nbig = b'x' * 100_000")
    worker.take()
    worker.run("items.append(2); other.append(2); big += b'y'")
    answer = worker.take_without("items", "big")
    assert reasons(answer) == {"items": KEPT, "big": KEPT}
    again, restored = worker.reborn_from(answer)
    assert reasons(restored) == {"items": KEPT, "big": KEPT}
    assert again.value("items, other, len(big)") == ([1], [1, 2], 100_000)


def test_it_keeps_that_value_from_checkpoint_to_checkpoint_and_worker_to_worker_until_it_is_saved() -> None:
    worker = Slow("class Box: pass\nbox = Box()\nbox.n = 1")
    worker.take()
    for n in (2, 3):
        worker.run(f"box.n = {n}")
        answer = worker.take_without("box")
    worker, restored = worker.reborn_from(answer)
    assert reasons(restored) == {"box": KEPT}
    worker.run("box.n += 10")
    worker, restored = worker.reborn_from(worker.take_without("box"))
    assert reasons(restored) == {"box": KEPT}
    assert worker.value("box.n, type(box) is Box") == (1, True)
    worker.run("box.n += 10")
    assert worker.reborn().value("box.n") == 11


def test_a_name_that_was_never_saved_or_is_of_another_type_now_keeps_nothing() -> None:
    worker = Slow("items = [1]")
    worker.take()
    worker.run("new = [2]\nitems = {3}")
    answer = worker.take_without("items", "new")
    assert reasons(answer) == dict.fromkeys(("items", "new"), ("it took longer than 2 s", False))
    again, _ = worker.reborn_from(answer)
    assert not {"items", "new"} & again.names.keys()


def test_names_that_share_objects_are_kept_together() -> None:
    worker = Slow("part = [1]\none = {'p': part}\ntwo = {'p': part}")
    worker.take()
    worker.run("part.append(2)")
    answer = worker.take_without("part", "one", "two")
    assert reasons(answer) == {"part": KEPT, "one": KEPT, "two": KEPT}
    again, _ = worker.reborn_from(answer)
    assert again.value("part == [1] and one['p'] is part and two['p'] is part")


def test_what_was_shared_with_a_name_that_was_saved_is_apart_and_said_to_be() -> None:
    worker = Slow("part = [1]\none = {'p': part}\ntwo = {'p': part}\ngone = part")
    worker.take()
    worker.run("part.append(2)\ndel gone")
    answer = worker.take_without("one")
    reason = f"{KEPT[0]}; it shares nothing with part, two, gone any more"
    assert reasons(answer) == {"one": (reason, True)}
    again, _ = worker.reborn_from(answer)
    assert again.value("one, part, two['p'] is part, 'gone' in globals()") == (
        {"p": [1]},
        [1, 2],
        True,
        False,
    )


def test_an_instance_of_a_class_that_is_another_one_now_keeps_nothing() -> None:
    worker = Slow("class Box: pass\nbox = Box()")
    worker.take()
    worker.run("class Box: pass")
    answer = worker.take_without("box")
    assert reasons(answer) == {"box": ("it took longer than 2 s", False)}


def test_what_needs_a_class_that_took_too_long_is_as_old_as_that() -> None:
    worker = Slow("class Box: pass\nbox = Box()\nbox.n = 1")
    worker.take()
    worker.run("box.n = 2\nBox.more = 1")
    answer = worker.take_without("Box")
    assert {name for name, (_, kept) in reasons(answer).items() if kept} == {"Box", "box"}
    again, _ = worker.reborn_from(answer)
    assert again.value("box.n, type(box) is Box, hasattr(Box, 'more')") == (1, True, False)


def test_a_client_that_lost_the_contents_gets_no_reference_to_them() -> None:
    worker = Slow("big = ['x' * 1000]")
    worker.take()
    worker.store.clear()
    answer = worker.take_without("big")
    assert reasons(answer) == {"big": ("it took longer than 2 s", False)}
    assert answer.needs == []


def test_a_name_that_no_memory_was_left_for_keeps_its_value() -> None:
    worker = Slow(
        "class Hungry:\n"
        "    def __getstate__(self):\n"
        "        if self.n > 1: raise MemoryError\n"
        "        return {'n': self.n}\n"
        "hungry = Hungry()\nhungry.n = 1"
    )
    worker.take()
    worker.run("hungry.n = 2")
    answer = worker.take()
    assert [kept for _, kept in reasons(answer).values()] == [True]
    again, _ = worker.reborn_from(answer)
    assert again.value("hungry.n") == 1
