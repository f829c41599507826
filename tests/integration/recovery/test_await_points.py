"""Every await of a caller ends, at whatever point of the durable path its session ends."""

import random
from pathlib import Path

import pytest

from tests.integration.recovery.await_points import ENDINGS, STORE_STATES, StoreState, check

pytestmark = pytest.mark.anyio

_SEED = 10
_RUNS = 8
"""Of the bounded form."""


async def test_every_await_ends_wherever_the_session_ends(tmp_path: Path) -> None:
    chance = random.Random(_SEED)
    points = await check(tmp_path / "whole.db", None, "close", "well")
    for n in range(_RUNS):
        ending, state = ENDINGS[n % len(ENDINGS)], STORE_STATES[(n + n // len(ENDINGS)) % len(STORE_STATES)]
        await check(tmp_path / f"{n}.db", chance.randrange(points), ending, state)


@pytest.mark.long
@pytest.mark.parametrize("state", STORE_STATES)
async def test_every_await_ends_at_every_point(tmp_path: Path, state: StoreState) -> None:
    points = await check(tmp_path / "whole.db", None, "close", "well")
    for target in range(points):
        for ending in ENDINGS:
            path = tmp_path / f"{target}-{ending}.db"
            await check(path, target, ending, state)
            path.unlink()
