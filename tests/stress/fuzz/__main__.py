"""Sends mutated frames to both decoders and both sessions, and checks that nothing breaks.

    python -m tests.stress.fuzz [--seed N] [--frames N] [--target decoder|worker|client|all]
    python -m tests.stress.fuzz --replay FILE

Of `--frames`, `all` gives eight tenths to the decoders (parent to worker, worker to parent; every stream is
also read naively, and both readings must agree), one tenth to client sessions (with a worker that sends what
it should not) and one tenth to worker sessions (real processes). No crash, no hang, no unhandled
exception, no traceback, no task or fd left over, memory bounded. What goes wrong is saved as a file that
`--replay` takes. The seed that is printed makes the same streams again.
"""

import argparse
import os
import secrets
import sys
from collections import Counter

from tests.stress.fuzz.case_process import MOST_GROWTH, TARGETS, Order
from tests.stress.fuzz.runner import CaseProcess, replay, run, shrink


def orders(target: str, seed: int, frames: int, processes: int) -> list[Order]:
    """Divide the frames among processes."""
    shares = {"decoder": 0.8, "client": 0.1, "worker": 0.1} if target == "all" else {target: 1.0}
    made: list[Order] = []
    for name, share in shares.items():
        each = -(-int(frames * share) // processes)
        made += [
            Order(target=name, seed=seed, process_number=number, frames=each) for number in range(processes)
        ]
    return made


def summarise(processes: list[CaseProcess]) -> None:
    """Print what was done, by target."""
    for target in TARGETS:
        of_target = [one for one in processes if one.order.target == target]
        if not of_target:
            continue
        tally: Counter[str] = Counter()
        for one in of_target:
            tally.update(one.tally)
        frames, cases = sum(one.frames for one in of_target), sum(one.cases for one in of_target)
        seconds = max(one.seconds for one in of_target)
        print(f"{target}: {frames:,} frames in {cases:,} sequences, {seconds:.1f} s")
        grown, peak = max(one.grown for one in of_target), max(one.peak for one in of_target)
        print(
            f"  memory: at most {peak // 1024} MiB, grew by {grown / 1024:.1f} of {MOST_GROWTH[target]} MiB"
        )
        for what, count in tally.most_common():
            print(f"  {count:>10,} {what}")


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="repeats the streams")
    parser.add_argument("--frames", type=int, default=1_000_000, help="about how many (default 1,000,000)")
    parser.add_argument("--target", choices=(*TARGETS, "all"), default="all")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=cores, help="how many at once (default: one a core)")
    parser.add_argument("--replay", metavar="FILE", help="check the one sequence in a file again")
    arguments = parser.parse_args()
    if arguments.replay:
        what = replay(arguments.replay)
        print(what or "nothing went wrong")
        return 1 if what else 0
    print(f"seed {arguments.seed}: {arguments.frames:,} frames", flush=True)
    shared = orders(arguments.target, arguments.seed, arguments.frames, arguments.processes)
    try:
        processes = run(shared, side_by_side=arguments.processes)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the seed was {arguments.seed}", file=sys.stderr)
        return 130
    summarise(processes)
    wrong = [one for one in processes if one.what]
    for one in wrong:
        print(f"\n{one.order.target}: {one.what}")
        if one.finding:
            path, left = shrink(one.finding)
            again = f"{left} frames show it again" if left else "alone it does not show again"
            print(f"{again}: python -m tests.stress.fuzz --replay {path}")
    if not wrong:
        print(f"seed {arguments.seed}: nothing went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
