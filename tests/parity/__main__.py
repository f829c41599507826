"""`python -m tests.parity`: runs notebooks in a Jupyter kernel and in a session, and says where they differ.

    --notebook NAME     one of them; all by default
    --all               show the known differences too

The exit status is 1 when there is a difference that `known.py` does not name.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.parity.cells import Outcome, notebook_names, read_notebook
from tests.parity.kernel import kernel, run_in_kernel
from tests.parity.known import reason_of
from tests.parity.session import run_in_session, session

type Difference = tuple[str, int, str, object, object, str]
"""Notebook, cell (from 1), field, ours, the kernel's, and the reason if it is known."""


def compare(name: str) -> tuple[int, list[Difference]]:
    """Run a notebook in both; return how many cells it has, and what differs."""
    cells = read_notebook(name)
    with (
        tempfile.TemporaryDirectory(prefix="parity-") as ours,
        tempfile.TemporaryDirectory(prefix="parity-") as theirs,
    ):
        with kernel(Path(theirs)) as client:
            expected = [run_in_kernel(client, cell) for cell in cells]
        with session(Path(ours)) as opened:
            seen = [run_in_session(opened, cell) for cell in cells]
    found: list[Difference] = []
    for number, (cell, here, there) in enumerate(zip(cells, seen, expected, strict=True), 1):
        found += differences_of(name, number, cell, here, there)
    return len(cells), found


def differences_of(name: str, number: int, cell: str, here: Outcome, there: Outcome) -> list[Difference]:
    """Return how two outcomes of one cell differ."""
    return [
        (name, number, field, mine, other, reason_of(cell, field, mine, other))
        for field, (mine, other) in here.differences(there).items()
    ]


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.parity")
    parser.add_argument("--notebook", choices=notebook_names(), action="append")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    cells, unknown, known = 0, 0, 0
    for name in arguments.notebook or notebook_names():
        count, found = compare(name)
        cells += count
        for _, number, field, mine, other, reason in found:
            known += bool(reason)
            unknown += not reason
            if arguments.all or not reason:
                print(f"{name} {number} {field}: {reason or 'NOT KNOWN'}")
                print(f"    ours   {mine!r}\n    kernel {other!r}")
        print(f"{name}: {count} cells, {len(found)} differences")
    print(f"{cells} cells: {unknown} differences that nothing explains, {known} with a known reason")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
