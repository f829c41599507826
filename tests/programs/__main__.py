"""`python -m tests.programs`: runs test suites in a session and in plain Python, and says where they differ.

    --only NAME         one of them; all by default
    --all               show the known differences too

The suites are CPython's own, module by module, and those of libraries, by `pytest.main`. The exit status is 1
when there is a difference that `known.py` does not name, and that a second run shows again.
"""

import argparse
import signal
import sys
import time

from tests.programs.run import PROGRAMS, compare


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.programs")
    parser.add_argument("--only", choices=sorted(PROGRAMS), action="append", metavar="NAME")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    # Behind a shell's `&` it is ignored, also in the processes that are started here, and tests wait for it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tests, unknown, known = 0, 0, 0
    for name in arguments.only or PROGRAMS:
        begun = time.monotonic()
        count, found = compare(name)
        if any(not difference.reason for difference in found):
            _, again = compare(name)  # what has to do with time, on a busy machine, does not come again
            seen = {difference.test for difference in again}
            found = [difference for difference in found if difference.test in seen]
        tests += count
        for difference in found:
            known += bool(difference.reason)
            unknown += not difference.reason
            if arguments.all or not difference.reason:
                print(difference)
        print(f"{name}: {count} tests, {len(found)} differ, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{tests} tests: {unknown} differences that nothing explains, {known} with a known reason")
    return 1 if unknown or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
