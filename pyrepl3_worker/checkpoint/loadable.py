"""Leaves out of a checkpoint what can't be loaded again, and nothing else.

A group of names that share objects fails as a whole. Then each of its names is loaded in trial by itself:
those that fail are left out, and the others are put into groups anew, by what they share among each other.
"""

from collections.abc import Mapping, Sequence

from pyrepl3_worker.checkpoint.grouping import Names
from pyrepl3_worker.checkpoint.manifest import NameGroup
from pyrepl3_worker.checkpoint.process_state import ProcessState
from pyrepl3_worker.checkpoint.save import CheckpointWriter, PickledGroup
from pyrepl3_worker.checkpoint.time_budget import TimeBudget


class LoadCheck:
    """Loads new and changed groups in trial, where that runs foreign code (see `trial`)."""

    def __init__(self, budget: TimeBudget, process_state: ProcessState | None) -> None:
        """Use the time of this budget; `process_state` knows what each worker has one of."""
        self._budget = budget
        self._process_state = process_state
        self._known: dict[bytes, str] = {}
        """By what was loaded in the last checkpoint, why it can't be loaded, or an empty text."""

    def drop_unloadable(
        self,
        writer: CheckpointWriter,
        pickled: Sequence[PickledGroup],
        unchanged: Mapping[str, NameGroup],
        hidden: frozenset[str],
    ) -> list[PickledGroup]:
        """Return the groups that load; `writer` reports the names that do not.

        Args:
            writer: has pickled the groups.
            pickled: all groups that were pickled for this checkpoint.
            unchanged: by name, the groups that were not pickled anew.
            hidden: names that every worker's namespace has.
        """
        run = _Run(self._known, self._budget, self._process_state, writer, unchanged, hidden)
        failed = run.find_failures(pickled)
        kept: list[PickledGroup] = []
        for group in pickled:
            reason = failed.get(group.names)
            if reason is None or len(group.names) == 1 or group.names in run.slow:
                kept.append(group)
                continue
            del failed[group.names]
            others = [each for each in pickled if each is not group]
            parts, why = run.split(group, others, reason)
            kept += parts
            failed |= why
        self._known = run.verdicts
        return writer.drop_unloadable(kept, failed, run.slow) if failed else kept


class _Run:
    """The trials for one checkpoint."""

    def __init__(
        self,
        known: Mapping[bytes, str],
        budget: TimeBudget,
        process_state: ProcessState | None,
        writer: CheckpointWriter,
        unchanged: Mapping[str, NameGroup],
        hidden: frozenset[str],
    ) -> None:
        self.verdicts: dict[bytes, str] = {}
        self.slow: dict[Names, float] = {}
        """By a group's names, the seconds after which its loading was stopped."""
        self._known = known
        self._budget = budget
        self._process_state = process_state
        self._writer = writer
        self._unchanged = unchanged
        self._hidden = hidden

    def find_failures(
        self, groups: Sequence[PickledGroup], others: Sequence[PickledGroup] = ()
    ) -> dict[Names, str]:
        """Load groups in trial; return by their names why those fail that do. `others` are there too."""
        trials = [group for group in groups if group.runs_code]
        if not trials:
            return {}
        from pyrepl3_worker.checkpoint.trial import trial_keys, try_to_load

        there = [*others, *groups]
        keys = trial_keys(trials, there, self._writer, self._unchanged)
        verdicts = {key: self._known[key] for key in keys if key in self._known}
        waiting = [(key, group) for key, group in zip(keys, trials, strict=True) if key not in verdicts]
        if waiting:
            tried = [group for _, group in waiting]
            found = try_to_load(tried, there, self._writer, self._hidden, self._budget, self._process_state)
            for (key, group), verdict in zip(waiting, found, strict=False):
                verdicts[key] = verdict.reason
                if verdict.seconds:
                    self.slow[group.names] = verdict.seconds
        self.verdicts |= verdicts
        return {
            group.names: reason
            for key, group in zip(keys, trials, strict=True)
            if (reason := verdicts.get(key))
        }

    def split(
        self, group: PickledGroup, others: Sequence[PickledGroup], reason: str
    ) -> tuple[list[PickledGroup], dict[Names, str]]:
        """Return what of a group that fails for `reason` loads, and the names that do not, with the reasons.

        All of it fails where each name loads by itself, or where the names that do can't be told apart.
        """
        alone = self._writer.pickle_alone(group.names)
        why = self.find_failures(alone, others)
        sound = [each for each in alone if each.names not in why]
        if why and sound:
            parts = self._writer.regroup(sound)
            bad = self.find_failures(parts, others)
            if not bad:
                return parts, why
        return [], dict.fromkeys(((name,) for name in group.names), reason)
