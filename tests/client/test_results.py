"""`ExecutionResult` and the text in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrepl3_client import ExecutionResult
from pyrepl3_client.results import LazyText


@given(st.lists(st.text()))
def test_text_in_pieces_is_the_text(pieces: list[str]) -> None:
    text = LazyText(list(pieces))
    assert str(text) == "".join(pieces)
    assert str(text) == "".join(pieces)
    assert text == LazyText(["".join(pieces)])
    assert hash(text) == hash(LazyText(["".join(pieces)]))


def test_a_result_with_much_output_has_a_short_repr() -> None:
    result = ExecutionResult(execution_id="e", stdout_text=LazyText(["x" * 1_000_000]))
    assert len(repr(result)) < 1000
    assert len(result.stdout) == 1_000_000


def test_a_result_cannot_be_changed() -> None:
    result = ExecutionResult(execution_id="e")
    with pytest.raises(AttributeError):
        result.value = 5  # pyright: ignore[reportAttributeAccessIssue]
