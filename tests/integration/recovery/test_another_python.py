"""A session that is opened again with another version of Python has its data, and hears of the rest."""

import sys
from pathlib import Path
from random import Random

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.other_python import OtherPython, other_python

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["to the newer", "to the older"])
def configs(request: pytest.FixtureRequest) -> tuple[pyrepl3.WorkerConfig, pyrepl3.WorkerConfig, str]:
    other: OtherPython = other_python(request.config)
    here = f"CPython 3.{sys.version_info.minor}"
    both = (
        pyrepl3.WorkerConfig(),
        pyrepl3.WorkerConfig(python=other.program, env={"PYTHONPATH": other.path}),
    )
    return (*both, here) if request.param == "to the older" else (both[1], both[0], other.name)


async def fill(session: pyrepl3.Session) -> None:
    await session.execute("import pathlib, random\nnumbers = [1, 2]\nalso = {'n': numbers}\nrandom.seed(5)")
    await session.execute(
        "class Point:\n    def __init__(self, x): self.x = x\n    def far(self): return self.x > 9"
    )
    await session.execute("def double(x): return 2 * x")
    await session.execute("points = [Point(10)]\nhome = pathlib.Path('/home')")
    await session.execute("numbers.append(3)\npoints.append(Point(1))")


async def test_data_comes_back_and_code_is_named(
    tmp_path: Path, configs: tuple[pyrepl3.WorkerConfig, pyrepl3.WorkerConfig, str]
) -> None:
    first, second, saved_by = configs
    url = str(tmp_path / "state.db")
    async with pyrepl3.open_session("s", store=url, config=first) as session:
        await fill(session)
    async with pyrepl3.open_session("s", store=url, config=second, recovery="checkpoint") as session:
        lost = {each.name: each.reason for each in session.recoveries[-1].lost}
        assert lost.keys() == {"Point", "double", "points"}
        assert all(f"it holds code or inner state of {saved_by}, which" in each for each in lost.values())
        found = await session.execute("numbers, also['n'] is numbers, str(home), random.random()")
        assert found.repr == f"([1, 2, 3], True, '/home', {Random(5).random()})"


async def test_code_is_made_again_by_its_cells_and_what_needs_it_comes_back(
    tmp_path: Path, configs: tuple[pyrepl3.WorkerConfig, pyrepl3.WorkerConfig, str]
) -> None:
    first, second, _ = configs
    url = str(tmp_path / "state.db")
    async with pyrepl3.open_session("s", store=url, config=first) as session:
        await fill(session)
    async with pyrepl3.open_session("s", store=url, config=second) as session:
        report = session.recoveries[-1]
        assert report.lost == ()
        assert {name for name, _ in report.remade} == {"Point", "double"}
        found = await session.execute(
            "numbers, double(4), [each.far() for each in points], type(points[0]) is Point"
        )
        assert found.repr == "([1, 2, 3], 8, [True, False], True)"
