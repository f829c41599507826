"""Errors of the wire travel whole: through pickle, into text, and never longer than they should be."""

import copy
import pickle
from collections.abc import Iterator

import pytest

from pyrepl3_schemas.errors import ProtocolError
from pyrepl3_schemas.large_values import UnknownHere


def family(cls: type[ProtocolError]) -> Iterator[type[ProtocolError]]:
    """Yield a class and all that inherit from it."""
    yield cls
    for heir in cls.__subclasses__():
        if heir.__module__.startswith("pyrepl3_schemas."):
            yield from family(heir)


FAMILY = sorted(set(family(ProtocolError)), key=lambda cls: cls.__name__)


def test_the_family_is_known() -> None:
    assert [cls.__name__ for cls in FAMILY] == [
        "LocalProtocolError",
        "ProtocolError",
        "RemoteProtocolError",
        UnknownHere.__name__,
        "ValueTooLarge",
    ]


@pytest.mark.parametrize("offset", [None, 0, 2**40])
@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: f"{cls.__name__}")
def test_an_error_survives_pickle_and_copy(cls: type[ProtocolError], offset: int | None) -> None:
    error = cls("the reason – ✓", offset)
    error.add_note("a note")
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(back) is cls
        assert (back.reason, back.offset, str(back)) == (error.reason, offset, str(error))
        assert back.__notes__ == ["a note"]


def test_the_text_names_the_offset_where_there_is_one() -> None:
    assert str(ProtocolError("late", 17)) == "late (at byte 17)"
    assert str(ProtocolError("late", 0)) == "late (at byte 0)"
    assert str(ProtocolError("late")) == "late"


def test_a_long_reason_is_cut_everywhere() -> None:
    error = ProtocolError("x" * 1_000_000)
    assert len(error.reason) == 400
    assert len(pickle.dumps(error)) < 600
