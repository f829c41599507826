"""Finds a program that shows a fault of the checkpoint room it runs with: `python -m …find_fault ROOT`.

ROOT is the folder that the room must come from, so that no other one is searched by mistake. The exit code
is 0 when a program is found, which is printed.
"""

import sys

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

import pyrepl3_worker
from tests.worker.checkpoint.oracle.programs import Program, programs
from tests.worker.checkpoint.oracle.runs import difference

_EXAMPLES = 1500
_seen = 0


def is_wrong(program: Program) -> bool:
    """Return whether a program shows a fault."""
    global _seen  # noqa: PLW0603 - a script
    _seen += 1
    try:
        return difference(program) != ""
    except Exception:
        return True


def main() -> int:
    """Search, and print what was found."""
    assert pyrepl3_worker.__file__.startswith(sys.argv[1]), pyrepl3_worker.__file__
    try:
        found = find(
            programs(),
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
        return 1
    print(f"after {_seen} programs:\n{found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
