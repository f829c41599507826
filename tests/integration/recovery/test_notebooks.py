"""Notebooks as people write them, killed between cells and in the midst of one: what comes back was there.

A notebook runs undisturbed, and again with its worker killed; a probe in the worker describes both ends. They
may differ in a name only where the recovery's report names exactly this name.
"""

import ast
import json
import os
import random
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._journal.assigned_names import assigned_names

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]

HERE: Final = Path(__file__).parent
PROBE: Final = HERE / "namespace_probe.py"
NOTEBOOKS: Final = sorted((HERE / "notebooks").glob("*.py"))
LIBRARIES: Final = frozenset(
    ["numpy", "pandas", "matplotlib", "sklearn", "sympy", "networkx", "pydantic", "sqlalchemy", "duckdb"]
)
SEED: Final = int(os.environ.get("NOTEBOOKS_SEED", "1"))
MIDWAY: Final = "midway"
ENVIRONMENT: Final = {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

type Where = Literal["between", "replayed", "within"]
"""Killed after a cell and a checkpoint; after a cell, with the checkpoint before it; in its midst."""


def cells_of(notebook: Path) -> list[str]:
    return [
        cell for cell in re.split(r"^# %%.*\n", notebook.read_text(), flags=re.MULTILINE)[1:] if cell.strip()
    ]


def needs(notebook: Path) -> set[str]:
    words = re.findall(r"^(?:import|from) (\w+)", notebook.read_text(), flags=re.MULTILINE)
    return set(words) & LIBRARIES


def unseeded(notebook: Path) -> set[str]:
    """The generators that begin in each process somewhere else."""
    text = notebook.read_text()
    names: set[str] = set()
    if not re.search(r"^random\.seed\(", text, re.MULTILINE):
        names.add("(random)")
    if "np.random.seed(" not in text:
        names.add("(numpy random)")
    return names


def with_midway(cell: str) -> str:
    """Return a cell that calls the host before its last statement."""
    body = ast.parse(cell).body
    line = body[-1].lineno
    if isinstance(body[-1], ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        line = min([line, *[each.lineno for each in body[-1].decorator_list]])
    lines = cell.splitlines()
    return "\n".join([*lines[: line - 1], f"{MIDWAY}()", *lines[line - 1 :]])


def names_in(cell: str) -> set[str]:
    """Every name that a cell uses or binds."""
    return {node.id for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)} | assigned_names(
        cell
    )


class Run:
    """A notebook in a session of its own."""

    def __init__(self, session: pyrepl3.Session, folder: Path) -> None:
        self.session = session
        self._folder = folder
        self._said = folder.with_suffix(".json")
        self.unsaved: set[str] = set()

    async def checkpoint(self) -> None:
        self.unsaved |= {each.name for each in (await self.session.checkpoint()).unsaved}

    def reported(self) -> set[str]:
        """The names that were reported not to be what they were."""
        names = set(self.unsaved)
        for recovery in self.session.recoveries:
            names |= {each.name for each in (*recovery.lost, *recovery.outdated)} | {
                name for name, _ in recovery.remade
            }
            names |= {name for each in recovery.skipped for name in each.names}
        return names

    async def describe(self, without: Sequence[str]) -> dict[str, Any]:
        """Return the text of each name, and of the process's state."""
        await self.session.execute(
            f"__import__('runpy').run_path({str(PROBE)!r})['write']"
            f"(globals(), {str(self._said)!r}, {sorted(without)!r}, {MIDWAY!r})"
        )
        return json.loads(self._said.read_text().replace(str(self._folder), "<folder>"))


def opener(folder: Path, midway: Any) -> Any:
    folder.mkdir()
    config = pyrepl3.WorkerConfig(cwd=str(folder), env=os.environ | ENVIRONMENT, close_grace=1.0)
    return pyrepl3.open_session(config=config, capabilities={MIDWAY: midway}, recovery="auto")


async def undisturbed(notebook: Path, session: pyrepl3.Session, folder: Path) -> Run:
    for cell in cells_of(notebook):
        await session.execute(cell)
    return Run(session, folder)


async def killed(notebook: Path, k: int, where: Where, expected: Run, folder: Path) -> None:
    """Run a notebook whose worker is killed at its k-th cell; compare its end with that of another."""
    at = f"{notebook.stem}, cell {k}, {where}"
    kills: list[int] = []
    later: set[str] = set()
    """What cells after the death have made of names that were reported."""

    def midway() -> None:
        if not kills:
            kills.append(session.worker.pid)
            os.kill(session.worker.pid, 9)

    async with opener(folder, midway) as session:
        run = Run(session, folder)
        for n, cell in enumerate(cells_of(notebook)):
            if n == k and where != "between":
                await run.checkpoint()
            result = await session.execute(
                with_midway(cell) if n == k and where == "within" else cell, check=False
            )
            used = names_in(cell) & (run.reported() | later)
            if result.error is not None:
                assert used, f"{at}: cell {n} fails, and uses nothing that was reported: {result.error}"
            if used and (n > k or where == "within"):
                later |= assigned_names(cell)
            if n == k and where == "between":
                await run.checkpoint()
            if n == k and where != "within":
                kills.append(session.worker.pid)
                os.kill(session.worker.pid, 9)
        await session.execute("None")  # by now it has come back
        reported = run.reported() | later
        found = await run.describe(sorted(reported))
        assert kills
        assert len(session.recoveries) == 1, f"{at}: {session.recoveries}"
    right = await expected.describe(sorted(reported))
    for key in unseeded(notebook):
        found.pop(key, None)
        right.pop(key, None)
    differ = {name for name in found.keys() | right.keys() if found.get(name) != right.get(name)}
    assert not differ, (
        f"{at}: {[_apart(name, right.get(name), found.get(name)) for name in sorted(differ)]}; reported {reported}; {session.recoveries}"
    )


def _apart(name: str, right: Any, found: Any) -> str:
    """Return two descriptions from shortly before where they part."""
    one, other = json.dumps(right), json.dumps(found)
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, same - 60)
    return f"{name}: {one[start : start + 160]} became {other[start : start + 160]}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
async def test_a_notebook_that_is_killed_once_ends_as_it_ends_undisturbed(
    notebook: Path, tmp_path: Path
) -> None:
    """The bounded form: one kill for each notebook that needs nothing beyond the standard library."""
    if needs(notebook):
        pytest.skip(f"in the long form alone: it imports {', '.join(sorted(needs(notebook)))}")
    chosen = random.Random(f"{SEED} {notebook.stem}")
    places: list[Where] = ["between", "replayed", "within"]
    async with opener(tmp_path / "right", lambda: None) as session:
        expected = await undisturbed(notebook, session, tmp_path / "right")
        k = chosen.randrange(len(cells_of(notebook)))
        await killed(notebook, k, chosen.choice(places), expected, tmp_path / "killed")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("where", ["between", "replayed", "within"])
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
async def test_a_notebook_may_be_killed_at_each_of_its_cells(
    notebook: Path, where: Where, tmp_path: Path, record_property: Any
) -> None:
    for library in sorted(needs(notebook)):
        pytest.importorskip(library)
    async with opener(tmp_path / "right", lambda: None) as session:
        expected = await undisturbed(notebook, session, tmp_path / "right")
        for k in range(len(cells_of(notebook))):
            await killed(notebook, k, where, expected, tmp_path / f"killed{k}")
    record_property("kills", len(cells_of(notebook)))


def test_there_are_twenty_notebooks_for_every_library() -> None:
    assert len(NOTEBOOKS) >= 20
    assert set[str]().union(*map(needs, NOTEBOOKS)) == LIBRARIES
    there = sorted(name for name in LIBRARIES if find_spec(name))
    print(f"libraries here: {', '.join(there) or 'none'}")
