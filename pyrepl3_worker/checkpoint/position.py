"""What a checkpoint or restore is at, for another thread to tell."""

import sys
from typing import Final

from pyrepl3_schemas.messages import Progress
from pyrepl3_worker.checkpoint.time_budget import IMPORT_FUNCTION

_MAX_NAME_CHARS: Final = 200


class Position:
    """Counts the names that are done. Written on the thread that pickles, read on the timers' thread."""

    def __init__(self) -> None:
        """Be at nothing."""
        self.saving = True
        self.name = ""
        self.done = self.total = 0

    def start(self, total: int, *, saving: bool) -> None:
        """Begin with a number of names."""
        self.saving, self.name, self.done, self.total = saving, "", 0, total

    def next(self, name: str) -> None:
        """Turn to a name."""
        self.name = name
        self.done = min(self.done + 1, self.total)

    def message(self, checkpoint_id: str, thread_id: int) -> Progress:
        """Return what the thread is at: the outermost module that it imports, or else the name."""
        module = _imported_module(thread_id)
        if module:
            stage, name = "importing", module
        else:
            stage, name = "saving" if self.saving else "restoring", self.name
        return Progress(checkpoint_id, stage, name[:_MAX_NAME_CHARS], self.done, self.total)


def _imported_module(thread_id: int) -> str:
    found = ""
    frame = sys._current_frames().get(thread_id)  # pyright: ignore[reportPrivateUsage] - there is no other way to see it
    while frame is not None:
        if frame.f_code is IMPORT_FUNCTION:
            name = frame.f_locals.get("name")
            found = name if type(name) is str else found
        frame = frame.f_back
    return found
