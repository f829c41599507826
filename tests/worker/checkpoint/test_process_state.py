"""State of the process in manifests: what differs from the beginning, the same bytes for the same state."""

import subprocess
import sys

_PROGRAM = """
import os, random, sys
from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.checkpoint.manifest import BlobCollector
from pyrepl3_worker.checkpoint.process_state import ProcessState
from pyrepl3_worker.checkpoint.scope import PicklerContext
from pyrepl3_worker.checkpoint.time_budget import TimeBudget
state = ProcessState(InitialState(), TimeBudget())
def save():
    failed, collector = {}, BlobCollector(known)
    saved = state.save(collector, PicklerContext({}, {}), failed)
    assert not failed, failed
    known.update(collector.blobs)
    return saved, len(collector.blobs)
known = {}
"""


def in_a_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM + code], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_state_as_it_was_at_the_beginning_is_not_saved() -> None:
    names = in_a_process("print(sorted(each.name for each in save()[0]))")
    assert names == "['random.getstate()']\n"  # it has no beginning: each process seeds itself


def test_state_that_has_not_changed_is_sent_once() -> None:
    counts = in_a_process(
        "os.environ['LONG'] = 'x' * 1000\n"
        "print(save()[1], save()[1])\nrandom.random()\nprint(save()[1])\n"
        "os.environ['B'] = ''\nprint(save()[1])"
    )
    assert counts == "2 0\n1\n1\n"
