"""The fault run, in a bounded form."""

import pytest

from .chaos import run

pytestmark = pytest.mark.anyio


async def test_killed_workers_and_programs_cost_nothing() -> None:
    """Seed 7 kills workers and a program within these few cells."""
    tally = await run(seed=7, sessions=2, cells=30)
    assert tally["executions"] == 60
    assert tally["workers killed"] + tally["programs killed"] > 0
