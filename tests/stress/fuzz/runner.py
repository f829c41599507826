"""Case processes side by side: crashes, silence, findings, and the smallest stream of each finding."""

import json
import mmap
import os
import selectors
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tests.stress.fuzz.case_process import CASE_SECONDS, SHARED_BYTES, Finding, Order, load, remake

_SILENCE: Final = CASE_SECONDS + 20
"""Seconds without a line after which a process counts as hanging where no Python runs."""
_TRIES: Final = 60
"""Replays that making a finding smaller may take."""


@dataclass
class CaseProcess:
    """A process that checks cases, and what it has reported."""

    order: Order
    process: subprocess.Popen[bytes]
    shared: mmap.mmap
    cases: int = 0
    frames: int = 0
    tally: Counter[str] = field(default_factory=Counter[str])
    finding: str = ""
    """Path of the file that repeats what went wrong."""
    what: str = ""
    grown: int = 0
    peak: int = 0
    seconds: float = 0.0
    rest: bytes = b""
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)

    def read_lines(self, data: bytes) -> None:
        """Take the lines that the process has written."""
        self.heard = time.monotonic()
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            self.cases, self.frames = told["cases"], told["frames"]
            if "tally" in told:
                self.tally = Counter(told["tally"])
                self.finding, self.what = told["finding"] or "", told["what"]
                self.grown, self.peak = told.get("grown", 0), told.get("peak", 0)

    def record_exit(self, status: int) -> None:
        """Record how the process ended; when it crashed, save the case that it was checking."""
        self.seconds = time.monotonic() - self.started
        if status in (0, 1) and (status == 0 or self.what):
            return
        number, self.frames = struct.unpack("<QQ", self.shared[:SHARED_BYTES])
        self.what = f"the process ended with {status}, in case {number}"
        if self.order.replay:
            return
        to_worker, case = remake(self.order, number)
        self.finding = Finding.of(self.order, number, to_worker, case, self.what).save()


def start(order: Order) -> CaseProcess:
    """Start a process."""
    fd = os.memfd_create("fuzz")
    try:
        os.ftruncate(fd, SHARED_BYTES)
        command = [
            sys.executable,
            "-m",
            "tests.stress.fuzz.case_process",
            msgspec.json.encode(order).decode(),
            str(fd),
        ]
        # A group of its own: Ctrl-C is for this process.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[fd], process_group=0)
        return CaseProcess(order, process, mmap.mmap(fd, SHARED_BYTES))
    finally:
        os.close(fd)


def run(orders: list[Order], *, side_by_side: int, progress: bool = True) -> list[CaseProcess]:
    """Run processes, some at once, until all are done or one has found something; return those that began."""
    waiting, begun, running = list(orders), list[CaseProcess](), list[CaseProcess]()
    shown = time.monotonic()
    selector = selectors.DefaultSelector()
    try:
        while running or (waiting and not any(one.what for one in begun)):
            while waiting and len(running) < side_by_side and not any(one.what for one in begun):
                one = start(waiting.pop(0))
                begun.append(one)
                running.append(one)
                assert one.process.stdout is not None
                selector.register(one.process.stdout, selectors.EVENT_READ, one)
            for key, _ in selector.select(timeout=_SILENCE):
                one: CaseProcess = key.data
                data = os.read(key.fd, 65536)
                if data:
                    one.read_lines(data)
                    continue
                selector.unregister(key.fileobj)
                one.record_exit(one.process.wait())
                running.remove(one)
            for one in running:
                if time.monotonic() - one.heard > _SILENCE:
                    one.process.kill()
            if progress and time.monotonic() - shown > 5:
                shown = time.monotonic()
                print(*(f"  {one.order.target}: {one.frames:,} frames" for one in running), flush=True)
    finally:
        for one in running:
            one.process.kill()
            one.process.wait()
            one.seconds = time.monotonic() - one.started
        for one in begun:
            one.shared.close()
            assert one.process.stdout is not None
            one.process.stdout.close()
        selector.close()
    return begun


def replay(path: str) -> str:
    """Check the case in a file again, in a process of its own; return what went wrong, or an empty text."""
    order = Order(target=load(path).target, seed=0, process_number=0, frames=0, replay=path)
    (one,) = run([order], side_by_side=1, progress=False)
    return one.what


def shrink(path: str) -> tuple[str, int]:
    """Leave out frames as long as it goes wrong in the same way. Return the new file and how many are left.

    The count is 0 when the file alone does not show it again.
    """
    finding = load(path)
    wanted = _gist(replay(path))
    if not wanted:
        return path, 0
    frames, step, tries = finding.frames, max(len(finding.frames) // 2, 1), 0
    best = path
    while tries < _TRIES and len(frames) > 1:
        for start_at in range(0, len(frames), step):
            fewer = frames[:start_at] + frames[start_at + step :]
            if not fewer or tries >= _TRIES:
                continue
            tries += 1
            attempt = msgspec.structs.replace(finding, frames=fewer).save()
            if _gist(replay(attempt)) == wanted:
                frames, best = fewer, attempt
                break
            os.unlink(attempt)
        else:
            if step == 1:
                break
            step = max(step // 2, 1)
    return best, len(frames)


def _gist(what: str) -> str:
    """Return the part of a failure's text that is the same when it happens again."""
    lines = what.strip().splitlines()
    return lines[-1][:40] if lines else ""
