"""What comes back from checkpoints is what was there, in random programs, or is named."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.worker.checkpoint.oracle.programs import Program, programs
from tests.worker.checkpoint.oracle.runs import difference

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=_SLOW, database=None)
@given(programs())
def test_what_comes_back_is_what_was_there(program: Program) -> None:
    assert difference(program) == ""


@pytest.mark.long
@pytest.mark.timeout(3600)
@seed(int(os.environ.get("PYREPL3_SEED", "1")))
@settings(
    max_examples=int(os.environ.get("PYREPL3_EXAMPLES", "5000")),
    deadline=None,
    suppress_health_check=_SLOW,
    database=None,
    phases=[Phase.generate, Phase.shrink],
)
@given(programs())
def test_what_comes_back_is_what_was_there_in_many_programs(program: Program) -> None:
    assert difference(program) == ""
