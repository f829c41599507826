"""Saves and restores `In`, `Out` and the last results, so that the numbering of cells continues.

The results are saved as if they had names of their own (`Out[3]`), together with the variables that
share objects with them. The inputs are saved in blocks, and only the last block changes.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from pyrepl3_worker.checkpoint.manifest import BlobCollector, SavedHistory, join_blobs
from pyrepl3_worker.namespace import RESULT_NAMES, NamespaceManager

_INPUTS_PER_BLOCK: Final = 100
"""Inputs that are saved together."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[bytes]).decode


class CellHistory:
    """The history of cells in a session's namespace, as a checkpoint holds it."""

    def __init__(self, namespace: NamespaceManager) -> None:
        """Save and restore the history of `namespace`."""
        self._namespace = namespace

    def hidden_names(self, hidden: frozenset[str]) -> frozenset[str]:
        """Return the `hidden` names without those that the user's code has bound itself."""
        return hidden - self._namespace.names_bound_by_code()

    def last_cell(self) -> int:
        """Return the number of the last cell."""
        return max(0, len(self._namespace.inputs) - 1)

    def results(self) -> dict[str, object]:
        """Return the results, by the names that they are saved under."""
        outputs = self._namespace.outputs
        found: dict[str, object] = {
            f"Out[{number}]": value for number, value in outputs.items() if type(number) is int
        }
        known = {id(value) for value in found.values()}
        for name in RESULT_NAMES:
            value = self._namespace.recent_result(name)
            if id(value) not in known:
                found[_last_result_label(name)] = value
        return found

    def save(
        self, values: Mapping[str, object], aliases: dict[str, str], collector: BlobCollector
    ) -> SavedHistory:
        """Return the manifest's history.

        Args:
            values: what `results` returned.
            aliases: by the name of a result that could not be saved, the variable that is the same object.
            collector: gets the inputs.
        """
        inputs = self._namespace.inputs
        first = (
            next((at for at, source in enumerate(inputs) if source), len(inputs))
            // _INPUTS_PER_BLOCK
            * _INPUTS_PER_BLOCK
        )
        by_id = {id(value): name for name, value in values.items()}
        return SavedHistory(
            count=len(inputs),
            first=first,
            inputs=[
                collector.add(
                    _encode([_encode_source(source) for source in inputs[start : start + _INPUTS_PER_BLOCK]])
                )
                for start in range(first, len(inputs), _INPUTS_PER_BLOCK)
            ],
            results=list(values),
            recent={
                name: found
                for name in RESULT_NAMES
                if (found := by_id.get(id(self._namespace.recent_result(name)))) is not None
            },
            aliases=aliases,
        )

    def restore(self, saved: SavedHistory, values: Mapping[str, object], blobs: Mapping[str, bytes]) -> None:
        """Restore the history; `values` holds the results that could be restored, by name."""
        inputs = [""] * saved.first
        for content in saved.inputs:
            try:
                block = _decode(join_blobs(content, blobs))
                inputs += [source.decode("utf-8", "surrogatepass") for source in block]
            except (LookupError, UnicodeError, msgspec.MsgspecError):
                inputs += [""] * _INPUTS_PER_BLOCK  # so that the later inputs keep their numbers
        del inputs[saved.count :]
        outputs = {
            int(name[4:-1]): values[name]
            for name in saved.results
            if name in values and name.startswith("Out[")
        }
        recent = {name: values[found] for name, found in saved.recent.items() if found in values}
        self._namespace.restore_history(inputs, outputs, recent)


def _last_result_label(name: str) -> str:
    return (
        f"{name} (the last result but {RESULT_NAMES.index(name)})" if name != "_" else "_ (the last result)"
    )


def _encode_source(source: object) -> bytes:
    # The user's code may have put any object into `In`.
    return source.encode("utf-8", "surrogatepass") if type(source) is str else b""
