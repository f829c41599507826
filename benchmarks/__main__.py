"""The command: measure, print the table, say which goals were met."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.measure import Row, measure
from benchmarks.report import as_json, table, verdict
from benchmarks.scale import FULL, QUICK
from benchmarks.subjects import SUBJECTS


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure pyrepl3 beside its peers, in turns and in one run, and print the ratios.",
        epilog="subjects: " + ", ".join(SUBJECTS) + ". Peers that are not installed are left out, by name.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="subject",
        help=("what to measure: a subject, or what several begin with, as in durable (default: everything)"),
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of seconds; its figures mean little"
    )
    parser.add_argument("--alone", action="store_true", help="leave the peers out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too, as JSON")
    return parser


def chosen(name: str) -> set[str]:
    """Return the subject of that name, or else those whose names begin with it and a hyphen."""
    return {name} if name in SUBJECTS else {one for one in SUBJECTS if one.startswith(f"{name}-")}


async def run(names: Collection[str], *, quick: bool, alone: bool) -> list[Row]:
    """Measure the named subjects, or all, in the order of the table."""
    rows: list[Row] = []
    for subject in SUBJECTS.values():
        if not names or subject.name in names:
            rows += await measure(subject, QUICK if quick else FULL, alone=alone)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status. A missed goal is no failure: machines differ."""
    options = parser()
    arguments = options.parse_args(argv)
    names: list[str] = arguments.names
    unknown = [name for name in names if not chosen(name)]
    if unknown:
        options.error(f"no such subject: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    began = time.perf_counter()
    subjects = {subject for name in names for subject in chosen(name)}
    rows = asyncio.run(run(subjects, quick=arguments.quick, alone=arguments.alone))
    print(table(rows))
    print(f"\n{verdict(rows)} ({time.perf_counter() - began:.0f} s)")
    path: Path | None = arguments.json
    if path is not None:
        path.write_bytes(as_json(rows))
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    sys.stdout.flush()
    if "pydantic_monty" in sys.modules:
        # Threads of its runtime now and then abort the process while the interpreter shuts down
        # (seen with 1.4.0); everything of ours is closed by now.
        os._exit(status)
    sys.exit(status)
