"""What comes back from the death of a session's worker is what was there, or is named."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.integration.recovery.oracle.programs import Program, programs
from tests.integration.recovery.oracle.runs import Oracle

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.mark.timeout(300)  # on a busy machine
def test_what_comes_back_is_what_was_there(tmp_path: Path) -> None:
    with Oracle(tmp_path) as oracle:

        @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=_SLOW, database=None)
        @given(programs())
        def check(program: Program) -> None:
            assert oracle.difference(program) == ""

        check()


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("warm", [(), ("numpy", "pandas", "matplotlib")], ids=["plain", "libraries"])
def test_what_comes_back_is_what_was_there_in_many_programs(tmp_path: Path, warm: tuple[str, ...]) -> None:
    for library in warm:
        pytest.importorskip(library)
    with Oracle(tmp_path, warm=warm) as oracle:

        @seed(int(os.environ.get("PYREPL3_SEED", "1")))
        @settings(
            max_examples=int(os.environ.get("PYREPL3_EXAMPLES", "2000")),
            deadline=None,
            suppress_health_check=_SLOW,
            database=None,
            phases=[Phase.generate, Phase.shrink],
        )
        @given(programs(libraries=warm))
        def check(program: Program) -> None:
            assert oracle.difference(program) == ""

        check()
        print(f"{oracle.programs} programs")
