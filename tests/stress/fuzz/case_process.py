"""A process that makes and checks cases of one target, one after the other, by number.

A case comes from `seed/target/process/number` alone, so that the runner can make it again, also when
this process has crashed: the number of the case at work stands in memory that both share.
"""

import gc
import json
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final, Protocol

import msgspec

from tests.stress.fuzz.mutations import Case

TARGETS: Final = ("decoder", "client", "worker")
CASE_SECONDS: Final = 20.0
"""What takes longer hangs."""
MOST_GROWTH: Final = {"decoder": 64, "client": 64, "worker": 32}
"""MiB that a process's memory may grow by after its first tenth."""
_REPORT_EVERY: Final = 2.0
SHARED_BYTES: Final = 16
_MARK: Final = struct.Struct("<QQ")


class Target(Protocol):
    """What is fuzzed."""

    def make(self, chance: Random) -> tuple[bool, Case]:
        """Return whether a case goes to a worker, and the case."""
        ...

    def check(self, to_worker: bool, case: Case) -> None:
        """Run a case; raise when its outcome is wrong."""
        ...

    def settle(self) -> None:
        """Raise when something is left over; called after the last case."""
        ...


class Order(msgspec.Struct, kw_only=True):
    """What a process is to do."""

    target: str
    seed: int
    process_number: int
    frames: int
    """Frames to get through, about."""
    first: int = 0
    """Number of the first case."""
    replay: str = ""
    """A file that holds the one case to check instead."""


class Finding(msgspec.Struct, kw_only=True):
    """A case that went wrong; also the form of a file for `--replay`."""

    target: str
    to_worker: bool
    frames: list[str]
    """In hex, with their lengths."""
    max_frame_bytes: int
    choice: int
    what: str = ""
    origin: str = ""
    """Seed, process and number."""

    @property
    def case(self) -> Case:
        return Case([bytes.fromhex(frame) for frame in self.frames], self.max_frame_bytes, self.choice)

    @classmethod
    def of(cls, order: Order, number: int, to_worker: bool, case: Case, what: str) -> "Finding":
        return cls(
            target=order.target,
            to_worker=to_worker,
            frames=[frame.hex() for frame in case.frames],
            max_frame_bytes=case.max_frame_bytes,
            choice=case.choice,
            what=what,
            origin=f"seed {order.seed}, process {order.process_number}, case {number}",
        )

    def save(self) -> str:
        """Write it to a new file; return its path."""
        fd, path = tempfile.mkstemp(prefix=f"fuzz-{self.target}-", suffix=".json")
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)))
        return path


def load(path: str) -> Finding:
    """Read a file that `save` wrote."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Finding)


def open_target(name: str, tally: Counter[str]) -> Target:
    """Return the target of that name."""
    if name == "decoder":
        from tests.stress.fuzz.decoder_target import Decoders

        return Decoders(tally)
    if name == "client":
        from tests.stress.fuzz.client_target import ClientSessions

        return ClientSessions(tally)
    from tests.stress.fuzz.worker_target import WorkerSessions

    return WorkerSessions(tally)


def remake(order: Order, number: int) -> tuple[bool, Case]:
    """Make the case of that number again."""
    chance = Random(f"{order.seed}/{order.target}/{order.process_number}/{number}")
    return open_target(order.target, Counter()).make(chance)


class HangError(Exception):
    """A case took longer than `CASE_SECONDS`."""


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise HangError("".join(traceback.format_stack(frame, limit=6)))


def say(**words: Any) -> None:
    """Report to the runner."""
    print(json.dumps(words), flush=True)


def run_cases(order: Order, shared_fd: int) -> int:
    """Do what is ordered, reporting in lines of JSON; return the exit status."""
    shared = mmap.mmap(shared_fd, SHARED_BYTES)
    signal.signal(signal.SIGALRM, _on_alarm)
    tally: Counter[str] = Counter()
    target = open_target(order.target, tally)
    if order.replay:
        finding = load(order.replay)
        what = _checked(target.check, finding.to_worker, finding.case) or _checked(target.settle)
        say(cases=1, frames=len(finding.frames), tally=tally, finding=None, what=what)
        return 1 if what else 0
    frames, number = 0, order.first
    memory: _Memory = _Memory(order)
    told = time.monotonic()
    while frames < order.frames:
        to_worker, case = target.make(Random(f"{order.seed}/{order.target}/{order.process_number}/{number}"))
        shared[:] = _MARK.pack(number, frames)
        what = _checked(target.check, to_worker, case)
        frames += len(case.frames)
        number += 1
        what = what or memory.look(frames)
        if what:
            found = Finding.of(order, number - 1, to_worker, case, what)
            say(cases=number, frames=frames, tally=tally, finding=found.save(), what=what)
            return 1
        now = time.monotonic()
        if now - told > _REPORT_EVERY:
            told = now
            say(cases=number, frames=frames)
    what = _checked(target.settle)
    say(
        cases=number,
        frames=frames,
        tally=tally,
        finding=None,
        what=what,
        grown=memory.grown,
        peak=memory.peak,
    )
    return 1 if what else 0


def _checked(check: Callable[..., None], *arguments: Any) -> str:
    """Return what went wrong, or nothing."""
    signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
    try:
        check(*arguments)
    except HangError as error:
        return f"hang: not done after {CASE_SECONDS:g} seconds\n{error}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        return traceback.format_exc(limit=-8)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


class _Memory:
    """Resident memory, before and after."""

    def __init__(self, order: Order) -> None:
        self._most = MOST_GROWTH[order.target]
        self._warm_at = order.frames // 10
        self._base: int | None = None
        self._looked = 0

    @property
    def peak(self) -> int:
        """Most KiB that this process ever had."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @property
    def grown(self) -> int:
        """KiB by which it has grown since it was warm."""
        return 0 if self._base is None else self.peak - self._base

    def look(self, frames: int) -> str:
        """Say what is wrong, if anything."""
        if frames < self._warm_at:
            return ""
        if self._base is None:
            gc.collect()
            self._base = self.peak
        if self.grown > self._most * 1024:
            return f"memory grew by {self.grown} KiB, over {self._most} MiB"
        return ""


if __name__ == "__main__":
    sys.exit(run_cases(msgspec.json.decode(sys.argv[1], type=Order), int(sys.argv[2])))
