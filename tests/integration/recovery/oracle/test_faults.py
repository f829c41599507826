"""Each fault that recoveries once had is found when it is put back."""

from pathlib import Path

import pytest

from tests.helpers.fault_copies import find_in_copy

HERE = Path(__file__).parent
SEARCH = "tests.integration.recovery.oracle.find_fault"
FAULTS = sorted(HERE.glob("faults/*.patch"))
BOUNDED = ("own-names-taken-for-the-sessions", "files-opened-at-their-beginning")


def search(patch: Path, folder: Path) -> str:
    """Return the program that finds a fault, or fail. The patch says which part of programs to look in."""
    _, _, part = patch.read_text().partition("Part: ")
    return find_in_copy(patch, folder, SEARCH, part.split()[0])


def test_there_are_faults() -> None:
    assert len(FAULTS) >= 8
    assert {patch.stem for patch in FAULTS}.issuperset(BOUNDED)


@pytest.mark.timeout(300)  # on a busy machine
@pytest.mark.parametrize("name", BOUNDED)
def test_a_fault_is_found(name: str, tmp_path: Path) -> None:
    print(search(HERE / "faults" / f"{name}.patch", tmp_path))


@pytest.mark.long
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("patch", FAULTS, ids=lambda patch: patch.stem)
def test_every_fault_is_found(patch: Path, tmp_path: Path) -> None:
    print(search(patch, tmp_path))
