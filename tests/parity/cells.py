"""What a cell did, in a form in which a Jupyter kernel and a session can be compared; and the notebooks."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "notebooks"
"""The notebooks: cells between lines `# %%`. No `.py` files, since magics are no Python."""
_PICTURES: Final = ("image/png", "image/jpeg", "image/svg+xml")
_SUBSTITUTES: Final = (
    (r"\x1b\[[0-9;]*m", ""),  # colours
    (r"\r\n", "\n"),  # a command's, which writes to a terminal there
    (r" \((?:<cell>|\d+\.py), line \d+\)", ""),  # a SyntaxError's place, which IPython has in its text
    (r"0x[0-9a-fA-F]+", "0x…"),
    (r"(?:/tmp/ipykernel_\d+/\d+\.py|<cell [0-9a-f]+>|<ipython-input-[^>]*>)", "<cell>"),
    (r"/[^\s'\"]*parity-[^/\s'\"]*", "<folder>"),
    (r"(?m)^(?:CPU times|Wall time): .*$", "<times>"),
    (r"tmp[a-z0-9_]{8}", "<tmp>"),
    (r"(?:\d+(?:\.\d+)? [nμm]?s ± .*)", "<timing>"),
    (r"tid=\d+|ident=\d+|pid=\d+|Process-\d+|Task-\d+", "<id>"),
)


@dataclass(frozen=True)
class Outcome:
    """What can be seen of one cell."""

    error: str = ""
    """The type and text of the exception that ended it."""
    stdout: str = ""
    stderr: str = ""
    value: str = ""
    """The last value as text."""
    value_mimes: tuple[str, ...] = ()
    displays: tuple[tuple[str, ...], ...] = ()
    """MIME types of each display, without the last value's."""
    pictures: int = field(default=0)

    def differences(self, other: "Outcome") -> dict[str, tuple[object, object]]:
        """Return what differs from another outcome, by field: mine and the other's."""
        return {
            each.name: pair
            for each in fields(self)
            if (pair := (getattr(self, each.name), getattr(other, each.name)))[0] != pair[1]
        }


def normal(text: str) -> str:
    """Return a text without what differs between any two runs: addresses, times, names of temporary files."""
    for pattern, substitute in _SUBSTITUTES:
        text = re.sub(pattern, substitute, text)
    return text


def count_pictures(bundles: list[tuple[str, ...]]) -> int:
    """Return how many of these bundles of MIME types hold a picture."""
    return sum(any(mime in _PICTURES for mime in mimes) for mimes in bundles)


def read_notebook(name: str) -> list[str]:
    """Return the cells of a notebook."""
    text = (FOLDER / f"{name}.cells").read_text()
    return [cell.strip("\n") for cell in re.split(r"(?m)^# %%\n", text)]


def notebook_names() -> list[str]:
    """Return the names of all notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.cells"))
