"""The soak in a bounded form; marked `long`, as it is meant to be run."""

import logging
from pathlib import Path

import pytest

from tests.stress.soak.new_cells import run_cells
from tests.stress.soak.output_flood import WAYS, flood, flood_handler, lead
from tests.stress.soak.resources import Sample, growth
from tests.stress.soak.run import ENDS, FLAT_BYTES, soak

pytestmark = pytest.mark.anyio

AHEAD = 16 * 2**20
"""Most bytes that code may be ahead of its reader: 8 MiB that wait, pipes, what a cancel lets by."""


def test_growth_tells_a_leak_from_a_leap() -> None:
    leap = [Sample(n, 50_000_000 + (8_000_000 if n == 77 else 0)) for n in range(100)]
    assert growth(leap) == 0
    leak = [Sample(n, 50_000_000 + 1000 * 400 * n) for n in range(100)]
    assert growth(leak) > FLAT_BYTES


async def test_a_short_soak_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    # A captured record keeps what it tells of: an exception with its frames, a death.
    caplog.set_level(logging.CRITICAL, "pyrepl3")
    report = await soak(seed=5, sessions=4, executions=300)
    assert report.executions >= 300
    assert [end.__name__ for end in ENDS if not report.steps[end.__name__]] == []
    assert report.steps["closed"] >= 8
    assert report.recoveries >= 2


async def test_a_short_soak_with_a_store_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "pyrepl3")
    report = await soak(seed=2, sessions=2, executions=50, store=str(tmp_path / "state.db"))
    assert report.recoveries >= 2


@pytest.mark.parametrize("way", list(WAYS))
async def test_a_slow_reader_gets_head_and_tail_in_bounded_memory(way: str) -> None:
    await flood(way, 16_000_000, bound=1_000_000)


async def test_a_slow_handler_gets_head_and_tail_in_bounded_memory() -> None:
    await flood_handler("print", 16_000_000, bound=1_000_000)


@pytest.mark.parametrize("by_handler", [False, True])
async def test_code_is_not_far_ahead_of_a_slow_reader(by_handler: bool) -> None:
    assert await lead(1_000_000, by_handler=by_handler) < AHEAD


async def test_a_worker_forgets_the_cells_it_has_run() -> None:
    """`linecache` kept the source of every cell for ever."""
    first, second = await run_cells([300, 900], cache_size=100)
    assert 100 <= first.sources < 200
    assert abs(second.sources - first.sources) < 50


# --- as it is meant to be run -------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_hundred_thousand_executions() -> None:
    report = await soak(seed=20, sessions=50, executions=100_000)
    assert report.recoveries > 100


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", list(WAYS))
async def test_a_gigabyte_to_a_slow_reader(way: str) -> None:
    await flood(way, 1_000_000_000, bound=128 * 2**20)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_twenty_thousand_cells_in_one_worker() -> None:
    """`In` keeps 10,000 of them; after that nothing grows."""
    *_, middle, last = await run_cells([5_000, 12_000, 20_000])
    assert last.resident - middle.resident < 2 * 2**20
