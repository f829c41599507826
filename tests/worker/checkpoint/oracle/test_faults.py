"""Each fault that the checkpoint room once had is found when it is put back."""

from pathlib import Path

import pytest

from tests.helpers.fault_copies import find_in_copy

HERE = Path(__file__).parent
SEARCH = "tests.worker.checkpoint.oracle.find_fault"
FAULTS = sorted(HERE.glob("faults/*.patch"))
BOUNDED = ("sharing-through-what-the-memo-has", "methods-saved-by-name", "views-of-mappings-copied")
"""The faults of the bounded form: one of each part of the room."""


def test_there_are_faults() -> None:
    assert len(FAULTS) >= 10
    assert {patch.stem for patch in FAULTS}.issuperset(BOUNDED)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_fault_is_found(name: str, tmp_path: Path) -> None:
    print(find_in_copy(HERE / "faults" / f"{name}.patch", tmp_path, SEARCH))


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("patch", FAULTS, ids=lambda patch: patch.stem)
def test_every_fault_is_found(patch: Path, tmp_path: Path) -> None:
    print(find_in_copy(patch, tmp_path, SEARCH))
