"""A soak: many sessions at once, a random mix of everything, and nothing may be left or grow.

    python -m tests.stress.soak [--seed N] [--sessions N] [--executions N] [--store URL] [--flood BYTES]

Each session's outcomes, output and namespace are checked after each step. At the end there must be no
process, fd, thread, task, temporary file or object of the client too many, and the parent's memory must
have been flat in the second half of the run. The seed that is printed repeats the choices, not the
scheduler's. `--flood` then has a cell write that much to a reader that is slow.
"""

import argparse
import asyncio
import secrets
import sys
import time

from tests.stress.soak.output_flood import WAYS, flood
from tests.stress.soak.run import soak


def main() -> int:
    """Run it and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="repeats the choices")
    parser.add_argument("--sessions", type=int, default=50, help="how many at once (default 50)")
    parser.add_argument("--executions", type=int, default=100_000, help="all told (default 100000)")
    parser.add_argument("--store", help="record the sessions there; in this process's memory by default")
    parser.add_argument("--flood", type=int, default=0, metavar="BYTES", help="output to a slow reader")
    args = parser.parse_args()
    print(f"seed {args.seed}: {args.sessions} sessions, {args.executions:,} executions", flush=True)
    started = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - started:7.0f} s {text}", flush=True)

    try:
        if args.executions:
            report = asyncio.run(soak(args.seed, args.sessions, args.executions, args.store, tell=tell))
            print("\n".join(report.lines()))
            print("every outcome as it must be, nothing left behind")
        for way in WAYS if args.flood else ():
            print(asyncio.run(flood(way, args.flood)), flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
