"""The fault run's checks: each finds what it is there for."""

from pathlib import Path

import pytest

from tests.stress.chaos.checks import check_calls_made, check_log

GOOD = """\
0 ask cell-0:input:1
0 call cell-0:pay:1 1
1 call cell-0:pay:1 2
1 call cell-0:charge:1 1
1 refused cell-0
1 call cell-0:confirm:1 1
1 outcome cell-0 False aa
1 outcome cell-0 True aa
2 call cell-1:pay:1.1 1
2 call cell-1:confirm:1.1 1
2 call cell-1:pay:2.1 1
2 outcome cell-1 True bb
"""


def log(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_good_log(tmp_path: Path) -> None:
    outcomes = check_log(log(tmp_path / "log", GOOD))
    assert outcomes.digests == {"cell-0": "aa", "cell-1": "bb"}
    assert (outcomes.repeats, outcomes.asked_again, outcomes.reopened) == (1, 0, 0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("2 outcome cell-0 True bb", "has 2 outcomes"),
        ("2 outcome cell-0 False aa", "run to its end 2 times"),
        ("2 call cell-0:search:1 1", "asked after the end"),
        ("2 ask cell-0:input:2", "asked after the end"),
        ("2 call cell-2:pay:1 1\n2 call cell-2:pay:1 2", "made twice without a reason"),
        ("2 call cell-2:pay:1 1\n3 call cell-2:pay:1 1", "attempts"),
        ("2 call cell-2:charge:1 1\n3 call cell-2:charge:1 2", "may be made once"),
        ("2 ask cell-2:input:1\n2 ask cell-2:input:1", "asked twice"),
        ("2 call cell-2:confirm:1 1\n3 call cell-2:pay:1 2", "was on record"),
        ("2 call cell-2:confirm:1 1\n3 ask cell-2:input:1", "was on record"),
    ],
)
def test_a_broken_promise_is_found(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_log(log(tmp_path / "log", f"{GOOD}{more}\n"))


def test_a_repeat_for_a_reason_is_none(tmp_path: Path) -> None:
    more = "2 call cell-2:pay:1 1\n2 refused cell-2\n2 call cell-2:pay:1 2\n3 call cell-2:pay:1 3\n"
    assert check_log(log(tmp_path / "log", GOOD + more)).repeats == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [(GOOD + "2 call cell-9:pay:1 1\n", "cell-9"), (GOOD.replace("0 ask cell-0:input:1\n", ""), "input")],
)
def test_what_was_asked_is_what_an_undisturbed_run_asks(tmp_path: Path, text: str, said: str) -> None:
    undisturbed = log(tmp_path / "undisturbed", GOOD)
    assert check_calls_made("s", undisturbed, undisturbed) == 0
    with pytest.raises(AssertionError, match=said):
        check_calls_made("s", log(tmp_path / "log", text), undisturbed)
