"""What an execution has shown already, so that it is not shown twice when another worker runs it again.

A cell that is run again writes the same once more, as a rule. As long as it does, what was delivered
before its worker died is held back; from where it writes something else, all is delivered.
"""

from collections.abc import Iterable

import msgspec

from pyrepl3_schemas.messages import Display, Output


class ReplayFilter:
    """Compares what comes with what was delivered."""

    __slots__ = ("_displays", "_expected")

    def __init__(self, stdout: str, stderr: str, displays: Iterable[Display]) -> None:
        """Expect this to come again."""
        self._expected = {"stdout": stdout, "stderr": stderr}
        self._displays = list(displays)

    def unseen(self, output: Output) -> Output | None:
        """Return the part of an output that was not seen before, None when it is all known."""
        expected = self._expected[output.stream]
        if not expected:
            return output
        data = output.data
        if expected.startswith(data):
            self._expected[output.stream] = expected[len(data) :]
            return None
        self._expected[output.stream] = ""
        if data.startswith(expected):
            return msgspec.structs.replace(output, data=data[len(expected) :])
        return output

    def is_unseen(self, display: Display) -> bool:
        """Return whether a display was not seen before."""
        if self._displays and self._displays[0] == display:
            del self._displays[0]
            return False
        self._displays.clear()
        return True
