"""Lanes side by side, watched from outside: crashes, silence, findings and the smallest stream for each."""

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
"""Seconds without a line after which a lane is taken to hang where no Python runs."""
_TRIES: Final = 60
"""Replays that making a finding smaller may take."""


@dataclass
class Lane:
    """A lane's process and what it has told."""

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

    def hear(self, data: bytes) -> None:
        """Take lines."""
        self.heard = time.monotonic()
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            self.cases, self.frames = told["cases"], told["frames"]
            if "tally" in told:
                self.tally = Counter(told["tally"])
                self.finding, self.what = told["finding"] or "", told["what"]
                self.grown, self.peak = told.get("grown", 0), told.get("peak", 0)

    def end(self, status: int) -> None:
        """The process is gone: what it did not tell itself is told for it."""
        self.seconds = time.monotonic() - self.started
        if status in (0, 1) and (status == 0 or self.what):
            return
        number, self.frames = struct.unpack("<QQ", self.shared[:SHARED_BYTES])
        self.what = f"the lane ended with {status}, in case {number}"
        if self.order.replay:
            return
        to_worker, case = remake(self.order, number)
        self.finding = Finding.of(self.order, number, to_worker, case, self.what).save()


def start(order: Order) -> Lane:
    """Start a lane."""
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
        # A group of its own: Ctrl-C is for the one who watches.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[fd], process_group=0)
        return Lane(order, process, mmap.mmap(fd, SHARED_BYTES))
    finally:
        os.close(fd)


def run(orders: list[Order], *, side_by_side: int, progress: bool = True) -> list[Lane]:
    """Run lanes, some at once, until all are done or one has found something; give those that began."""
    waiting, begun, running = list(orders), list[Lane](), list[Lane]()
    shown = time.monotonic()
    selector = selectors.DefaultSelector()
    try:
        while running or (waiting and not any(lane.what for lane in begun)):
            while waiting and len(running) < side_by_side and not any(lane.what for lane in begun):
                lane = start(waiting.pop(0))
                begun.append(lane)
                running.append(lane)
                assert lane.process.stdout is not None
                selector.register(lane.process.stdout, selectors.EVENT_READ, lane)
            for key, _ in selector.select(timeout=_SILENCE):
                lane: Lane = key.data
                data = os.read(key.fd, 65536)
                if data:
                    lane.hear(data)
                    continue
                selector.unregister(key.fileobj)
                lane.end(lane.process.wait())
                running.remove(lane)
            for lane in running:
                if time.monotonic() - lane.heard > _SILENCE:
                    lane.process.kill()
            if progress and time.monotonic() - shown > 5:
                shown = time.monotonic()
                print(*(f"  {lane.order.target}: {lane.frames:,} frames" for lane in running), flush=True)
    finally:
        for lane in running:
            lane.process.kill()
            lane.process.wait()
            lane.seconds = time.monotonic() - lane.started
        for lane in begun:
            lane.shared.close()
            assert lane.process.stdout is not None
            lane.process.stdout.close()
        selector.close()
    return begun


def replay(path: str) -> str:
    """Check the case in a file again, in a process of its own; give what went wrong, or nothing."""
    order = Order(target=load(path).target, seed=0, lane=0, frames=0, replay=path)
    (lane,) = run([order], side_by_side=1, progress=False)
    return lane.what


def shrink(path: str) -> tuple[str, int]:
    """Leave out frames as long as it goes wrong in the same way; give the new file and how many are left.

    None are when the file alone does not show it again.
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
    """Give what two accounts of the same failure have in common."""
    lines = what.strip().splitlines()
    return lines[-1][:40] if lines else ""
