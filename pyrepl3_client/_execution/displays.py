"""The displays of one execution, as its result will have them: bounded, without what was cleared away."""

from collections import Counter
from typing import Final

from pyrepl3_schemas.display_budget import DisplayBudget, bundle_bytes
from pyrepl3_schemas.messages import Display

_SLACK_BYTES: Final = 1024 * 1024
"""What a worker may add for placeholders, or by several threads that display at once."""


class HeldDisplays:
    """What an execution has displayed, in order.

    An update stands beside what it replaces until there are too many: then only the last one is kept.
    """

    __slots__ = ("_budget", "_bytes", "_clears", "_most", "displays")

    def __init__(self, limit: int | None) -> None:
        """Hold `limit` bytes, a worker's `max_display_bytes`, and a little more."""
        most = None if limit is None else limit + _SLACK_BYTES
        self._budget = DisplayBudget(most)
        self._most = float("inf") if most is None else most
        self._bytes = 0
        self._clears = False
        self.displays: list[Display] = []

    @property
    def cut(self) -> bool:
        """Whether something was left out here, since the worker had not kept the bound."""
        return self._budget.cut

    def add(self, message: Display) -> Display | None:
        """Take a display or a clearing; return it as it may be shown, None if that is not at all."""
        if message.clear:
            self._clears = message.clear == "wait"
            self._budget.clear(wait=self._clears)
            if not self._clears:
                self._clear()
            return message
        admitted = self._budget.admit(message)
        self.something_comes()
        if admitted is not None:
            self.displays.append(admitted)
            self._bytes += bundle_bytes(admitted.data, admitted.metadata)
            if self._bytes > self._most:
                self._drop_replaced()
        return admitted

    def something_comes(self) -> None:
        """Clear, if that was to wait until something comes."""
        if self._clears:
            self._clears = False
            self._clear()

    def _clear(self) -> None:
        self.displays.clear()
        self._bytes = 0

    def _drop_replaced(self) -> None:
        """Keep of the updates of one display the last."""
        left = Counter(display.display_id for display in self.displays if display.update)
        kept: list[Display] = []
        for display in self.displays:
            if display.update:
                left[display.display_id] -= 1
                if left[display.display_id]:
                    continue
            kept.append(display)
        self.displays = kept
        self._bytes = sum(bundle_bytes(display.data, display.metadata) for display in kept)
