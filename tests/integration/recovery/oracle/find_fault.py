"""Finds a program that shows a fault of the packages it runs with: `python -m …find_fault ROOT PART`.

ROOT is the folder that the packages must come from, so that no others are searched by mistake. PART is what the
programs are about. The exit code is 0 when a program is found, which is printed.
"""

import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

import pyrepl3_client
import pyrepl3_worker
from tests.integration.recovery.oracle.programs import PARTS, Part, Program, programs
from tests.integration.recovery.oracle.runs import Oracle

_EXAMPLES = 200


def main() -> int:
    """Search, and print what was found."""
    for package in (pyrepl3_client, pyrepl3_worker):
        assert str(package.__file__).startswith(sys.argv[1]), package.__file__
    parts: list[Part] = [each for each in PARTS if each == sys.argv[2]]
    began = time.monotonic()
    wrong, differences = list[Program](), list[str]()
    with tempfile.TemporaryDirectory() as folder, Oracle(Path(folder)) as oracle:
        assert oracle.worker_file().startswith(sys.argv[1]), oracle.worker_file()

        def is_wrong(program: Program) -> bool:
            # A program that was wrong once is not run again: what a clock stops depends on the machine.
            if program not in wrong:
                try:
                    difference = oracle.difference(program)
                except pyrepl3_client.PyRepl3Error as error:
                    difference = f"it cannot even be looked at: {error}"  # a lock that is held for ever, say
                if difference:
                    wrong.append(program)
                    differences.append(difference)
            return program in wrong

        try:
            found = find(
                programs(parts=parts),
                is_wrong,
                settings=settings(
                    max_examples=_EXAMPLES,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    phases=[Phase.generate],
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        except NoSuchExample:
            print(f"{oracle.programs} programs show nothing", file=sys.stderr)
            return 1
    print(f"after {oracle.programs} programs, {time.monotonic() - began:.1f} s:\n{found}\n{differences[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
