"""`In`, `Out` and the last results in a checkpoint: so the numbering of cells goes on where it was.

The results are saved as if they had names of their own (`Out[3]`), together with the variables that
share objects with them. The inputs are saved in blocks, of which all but the last stay as they are.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from pyrepl3_worker.checkpoint.manifest import Outgoing, SavedHistory, take
from pyrepl3_worker.namespace import RESULTS, NamespaceManager

_BLOCK: Final = 100
"""Inputs that are saved together."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[bytes]).decode


class CellHistory:
    """What the session's engine knows of earlier cells."""

    def __init__(self, namespace: NamespaceManager) -> None:
        """Look after the history in `namespace`."""
        self._namespace = namespace

    def names(self, hidden: frozenset[str]) -> frozenset[str]:
        """Give what to hide of the `hidden` names: not those that the code has bound itself."""
        return hidden - self._namespace.overridden()

    def values(self) -> dict[str, object]:
        """Give the results by the names that they are saved under."""
        outputs = self._namespace.outputs
        found: dict[str, object] = {
            f"Out[{number}]": value for number, value in outputs.items() if type(number) is int
        }
        known = {id(value) for value in found.values()}
        for name in RESULTS:
            value = self._namespace.result(name)
            if id(value) not in known:
                found[_own(name)] = value
        return found

    def save(self, values: Mapping[str, object], aliases: dict[str, str], outgoing: Outgoing) -> SavedHistory:
        """Give what stands in the manifest.

        Args:
            values: what `values` gave.
            aliases: by the name of a result that could not be saved, the variable that is the same object.
            outgoing: takes the inputs.
        """
        inputs = self._namespace.inputs
        first = next((at for at, source in enumerate(inputs) if source), len(inputs)) // _BLOCK * _BLOCK
        by_id = {id(value): name for name, value in values.items()}
        return SavedHistory(
            count=len(inputs),
            first=first,
            inputs=[
                outgoing.put(_encode([_bytes(source) for source in inputs[start : start + _BLOCK]]))
                for start in range(first, len(inputs), _BLOCK)
            ],
            results=list(values),
            recent={
                name: found
                for name in RESULTS
                if (found := by_id.get(id(self._namespace.result(name)))) is not None
            },
            aliases=aliases,
        )

    def restore(self, past: SavedHistory, values: Mapping[str, object], blobs: Mapping[str, bytes]) -> None:
        """Go on from there; `values` has the results that could be restored."""
        inputs = [""] * past.first
        for content in past.inputs:
            try:
                block = _decode(take(content, blobs))
                inputs += [source.decode("utf-8", "surrogatepass") for source in block]
            except (LookupError, UnicodeError, msgspec.MsgspecError):
                inputs += [""] * _BLOCK  # the numbers stay right
        del inputs[past.count :]
        outputs = {
            int(name[4:-1]): values[name]
            for name in past.results
            if name in values and name.startswith("Out[")
        }
        recent = {name: values[found] for name, found in past.recent.items() if found in values}
        self._namespace.go_on(inputs, outputs, recent)


def _own(name: str) -> str:
    return f"{name} (the last result but {RESULTS.index(name)})" if name != "_" else "_ (the last result)"


def _bytes(source: object) -> bytes:
    # The code may have put anything there.
    return source.encode("utf-8", "surrogatepass") if type(source) is str else b""
