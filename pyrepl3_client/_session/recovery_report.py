"""How a session comes back: the policies, and the report of each recovery."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from pyrepl3_client._text import on_one_line
from pyrepl3_client.errors import DeathCertificate
from pyrepl3_schemas.messages import Unsaved

_SHOWN: Final = 8
"""How many items of each kind a report shows; it holds all of them."""

type RecoveryPolicy = Literal["auto", "replay", "checkpoint", "none"]
"""What a worker's death leads to.

`auto` restores the newest checkpoint, rebuilds what that could not hold by running again the cells that
made it, and runs again the cells after it; `replay` runs all finished cells again; `checkpoint` restores
and never runs a finished cell again; `none` leaves the session dead, for `restart`.
"""


class Skipped(msgspec.Struct, frozen=True):
    """An execution that was not run again, or whose run again did not count, and why."""

    execution_id: str
    reason: str
    names: tuple[str, ...] = ()
    """The names that its code binds: each may be missing, or be as it was before it."""

    def __str__(self) -> str:
        """Return it in a line."""
        names = f" (it binds {_some(self.names)})" if self.names else ""
        return on_one_line(f"without {self.execution_id}: {self.reason}{names}")


class RecoveryProgress(msgspec.Struct, frozen=True):
    """What a recovery is at that takes longer than a second."""

    stage: str
    """In words: `starting a worker`, `importing`, `restoring`, `running again`."""
    name: str = ""
    """The module, the variable, or the execution's id."""
    done: int = 0
    total: int = 0
    """How many names, or executions, there are in all; 0 when it is not known."""

    def __str__(self) -> str:
        """Return it in a few words."""
        count = f" ({self.done} of {self.total})" if self.total else ""
        return on_one_line(f"{self.stage} {self.name}".strip() + count)


class Recovery(msgspec.Struct, frozen=True):
    """How a session came back."""

    cause: DeathCertificate | None
    """The worker's death; None when the session was opened again from its store."""
    incarnation: int
    """The worker that it goes on in."""
    restored_from: str | None
    """The checkpoint that was restored."""
    replayed: tuple[str, ...]
    """Ids of the executions that were run again for their effect, in order."""
    lost: tuple[Unsaved, ...]
    """Names that are gone, and why."""
    skipped: tuple[Skipped, ...]
    """Executions that were left out or went another way."""
    seconds: float
    """From the death, or the opening, until the session took executions."""
    remade: tuple[tuple[str, str], ...] = ()
    """Names that no checkpoint could hold, each with the id of the execution that has made it again. What
    later ones had done to them is gone."""
    outdated: tuple[Unsaved, ...] = ()
    """Names that could not be saved in time since, and have the values that they had after cell `as_of`."""

    progress: RecoveryProgress | None = None
    """What the recovery is at; None in the report of one that is done."""

    @property
    def tells_something(self) -> bool:
        """Whether the session's user should hear of it: something has died, or is not what it was."""
        return bool(self.cause is not None or self.lost or self.outdated or self.skipped or self.remade)

    def __str__(self) -> str:
        """Return the report in a few lines, for the session's user to read."""
        if self.progress is not None:
            return f"the session comes back, for {self.seconds:.0f} s so far: {self.progress}"
        what = "the session was opened again from its record" if self.cause is None else str(self.cause)
        lines = [f"{what}; it goes on in worker incarnation {self.incarnation} after {self.seconds:.2f} s"]
        if self.restored_from is not None:
            lines.append(f"names restored from checkpoint {self.restored_from!r}")
        if self.replayed:
            lines.append(f"run again: {_some(self.replayed)}")
        if self.remade:
            made = _some([f"{name} by {execution_id}" for name, execution_id in self.remade], "; ")
            lines.append(f"made again, without what later cells had done to them: {made}")
        if self.outdated:
            old = _some([f"{u.name} (as of cell {u.as_of})" for u in self.outdated])
            lines.append(f"with earlier values, since they could not be saved in time: {old}")
        if self.lost:
            lost = _some([f"{u.name} ({u.type_name}: {u.reason})" for u in self.lost], "; ")
            lines.append(f"lost: {lost}")
        lines.extend(map(str, self.skipped[:_SHOWN]))
        if len(self.skipped) > _SHOWN:
            lines.append(f"without {len(self.skipped) - _SHOWN} more")
        return "\n".join(map(on_one_line, lines))


def _some(items: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown}{separator}… and {len(items) - _SHOWN} more"
