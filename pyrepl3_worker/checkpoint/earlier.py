"""Keeps the last saved values of names that could not be saved in time.

Foreign code that takes too long today, a busy machine or a lack of memory make no name fall out of the next
checkpoint: it keeps what was saved of it last, and the report says as of which cell. A name that is bound to
something of another type since then keeps nothing, nor does one whose class or function is another one now.
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from msgspec.structs import replace

from pyrepl3_worker.checkpoint.manifest import BlobCollector, NameGroup, bound_names
from pyrepl3_worker.rendering.reprs import type_name

_NOTHING: Final[Mapping[str, object]] = {}


class _Saved(NamedTuple):
    """A group as it was saved last."""

    group: NameGroup
    needs: Mapping[str, object]
    """By name, the definitions of other groups that it refers to, as they were."""
    cell: int
    """The number of the last cell then."""


class EarlierValues:
    """Remembers how each name was saved last: not its value, which must not be kept alive."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._saved: dict[str, _Saved] = {}

    def remember(self, groups: Iterable[NameGroup], value_of: Callable[[str], object], cell: int) -> None:
        """Remember groups, and forget all others.

        Args:
            groups: those of a checkpoint that was saved or restored.
            value_of: returns a name's value now, or None.
            cell: the number of the last cell.
        """
        before, self._saved = self._saved, {}
        for group in groups:
            names, as_of = bound_names(group), group.as_of
            needs = {name: value_of(name) for name in group.needs} if group.needs else _NOTHING
            if as_of is None:
                saved = _Saved(group, needs, cell)
            else:
                known = before.get(names[0])
                saved = _Saved(group, needs if known is None else known.needs, as_of)
            for name in names:
                self._saved[name] = saved

    def keep(
        self,
        overdue: AbstractSet[str],
        failed: AbstractSet[str],
        value_of: Callable[[str], object],
        collector: BlobCollector,
    ) -> list[NameGroup]:
        """Return groups with what was saved last of `overdue` names, as far as that still holds.

        Args:
            overdue: names that were not pickled in time; one may have been saved after all, alone.
            failed: all names that could not be saved.
            value_of: returns a name's value now, or None.
            collector: knows what the client has.
        """
        found: dict[int, tuple[_Saved, list[str]]] = {}
        for name in failed & overdue:
            saved = self._saved.get(name)
            if saved is not None and _still_holds(saved, name, value_of, collector):
                found.setdefault(id(saved), (saved, []))[1].append(name)
        while True:
            kept = {name for _, names in found.values() for name in names}
            missing = failed - kept
            without = [key for key, (saved, _) in found.items() if not missing.isdisjoint(saved.needs)]
            if not without:
                break
            for key in without:
                del found[key]
        return [
            replace(
                saved.group,
                only=tuple(name for name in bound_names(saved.group) if name in names),
                as_of=saved.cell,
            )
            for saved, names in found.values()
        ]


def _still_holds(
    saved: _Saved, name: str, value_of: Callable[[str], object], collector: BlobCollector
) -> bool:
    group = saved.group
    return (
        group.type_names[group.names.index(name)] == type_name(value_of(name))
        and all(value_of(need) is known for need, known in saved.needs.items())
        and all(map(collector.has_all_of, (group.pickle, *group.buffers)))
    )


def describe_earlier(group: NameGroup) -> str:
    """Return what a report adds for the names of a group that was kept."""
    others = [name for name in group.names if name not in bound_names(group)]
    apart = f"; it shares nothing with {', '.join(others)} any more" if others else ""
    return f"; it keeps its value as of cell {group.as_of}{apart}"
