"""Every await of a caller ends, at whatever point of the durable path its session ends."""

import os
import random
from pathlib import Path

import pytest

from tests.integration.recovery.await_points import ENDINGS, STORE_STATES, StoreState, check
from tests.integration.recovery.opening_points import OPENING_ENDS, check_opening, make_record

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

_SEED = 10
_RUNS = 8
"""Of the bounded form."""


async def test_every_await_ends_wherever_the_session_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(_SEED)
    points = await check(tmp_path / "whole.db", None, "close", "well")
    for n in range(_RUNS):
        ending, state = ENDINGS[n % len(ENDINGS)], STORE_STATES[(n + n // len(ENDINGS)) % len(STORE_STATES)]
        await check(tmp_path / f"{n}.db", chance.randrange(points), ending, state)
    # A store that fails is nobody's defect.
    assert [each.getMessage() for each in caplog.records if each.exc_info] == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("state", STORE_STATES)
async def test_every_await_ends_at_every_point(tmp_path: Path, state: StoreState) -> None:
    """With each state of the store, each point gets another ending; four seeds in a row give it all.

    All four endings at some 300 points in four states take hours; one takes half an hour in all.
    """
    points = await check(tmp_path / "whole.db", None, "close", "well")
    first = int(os.environ.get("PYREPL3_SEED", "0")) + STORE_STATES.index(state)
    for target in range(points):
        path = tmp_path / f"{target}.db"
        await check(path, target, ENDINGS[(first + target) % len(ENDINGS)], state)
        path.unlink()
        print(f"{target + 1} of {points} points", flush=True)


async def test_every_await_ends_wherever_an_opening_ends(tmp_path: Path) -> None:
    chance = random.Random(_SEED)
    record = tmp_path / "record.db"
    await make_record(record)
    points = await check_opening(record, tmp_path / "whole.db", None, "close", "well")
    for n, end in enumerate(OPENING_ENDS):
        state = STORE_STATES[n % len(STORE_STATES)]
        await check_opening(record, tmp_path / f"{n}.db", chance.randrange(points), end, state)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("state", STORE_STATES)
async def test_every_await_ends_at_every_point_of_an_opening(tmp_path: Path, state: StoreState) -> None:
    record = tmp_path / "record.db"
    await make_record(record)
    points = await check_opening(record, tmp_path / "whole.db", None, "close", "well")
    for target in range(points):
        for end in OPENING_ENDS:
            path = tmp_path / f"{target}-{end}.db"
            await check_opening(record, path, target, end, state)
            path.unlink()
