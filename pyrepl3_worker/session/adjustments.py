"""Changes what a warm worker was started with, for the session that has got it: before its code runs."""

import os
import sys
import time
from typing import Any

from pyrepl3_schemas.messages import Adjustments


def adjust(change: Adjustments) -> None:
    """Set variables of the environment, enter the directory, lower the limits.

    Raises:
        OSError: the directory cannot be entered, or a limit cannot be set.
    """
    if change.directory:
        os.chdir(change.directory)
    for name in change.unset:
        os.environ.pop(name, None)
    os.environ.update(change.environment)
    names = {*change.environment, *change.unset}
    if "TZ" in names:
        time.tzset()
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and not names.isdisjoint(("TMPDIR", "TEMP", "TMP")):
        tempfile.tempdir = None  # what it has found before; it looks again
    limits = (
        change.max_processes,
        change.max_memory_bytes,
        change.max_cpu_seconds,
        change.max_open_files,
        change.max_file_bytes,
    )
    if any(limit is not None for limit in limits):
        from pyrepl3_worker.confinement.rlimits import set_rlimits  # few sessions have others than their pool

        set_rlimits(change)
