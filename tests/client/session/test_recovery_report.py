"""A recovery's report is short to read, and whole to ask."""

from pyrepl3_client._session.recovery_report import Recovery, Skipped
from pyrepl3_schemas.messages import Unsaved

MANY = 1000


def test_a_report_of_a_thousand_of_each_shows_eight_and_holds_all() -> None:
    """What the session's user reads has a bound; the object has the full lists."""
    ids = tuple(f"cell-{number}" for number in range(MANY))
    report = Recovery(
        cause=None,
        incarnation=2,
        restored_from=None,
        replayed=ids,
        lost=tuple(Unsaved(name=each, type_name="Lock", reason="a lock") for each in ids),
        skipped=tuple(Skipped(each, "it failed") for each in ids),
        seconds=1.0,
        remade=tuple((each, each) for each in ids),
    )
    text = str(report)
    assert text.count("992 more") == 4
    assert "cell-7" in text
    assert "cell-8" not in text
    assert len(text.splitlines()) == 13
    assert len(report.lost) == len(report.skipped) == len(report.remade) == MANY
