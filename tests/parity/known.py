"""The differences that stay, each with its reason. `docs/ipython.md` lists them for users."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A kind of difference."""

    reason: str
    field: str
    matches: Callable[[str, str, str], bool]
    """Takes the cell, and both values as text: ours and the kernel's."""


def _configures(cell: str, ours: str, kernels: str) -> bool:
    return cell.startswith("%config InteractiveShell")


KINDS: list[Known] = [
    Known(
        "a UsageError's line stands in the error's traceback, not in stderr",
        "stderr",
        lambda cell, ours, kernels: kernels.replace(ours, "", 1).startswith("UsageError: "),
    ),
    Known(
        "IPython prints exception groups to stderr; here the error's traceback has them",
        "stderr",
        lambda cell, ours, kernels: ours == "" and "Exception Group Traceback" in kernels,
    ),
    Known(
        "IPython warns how to leave its terminal; SystemExit is an error like any other here",
        "stderr",
        lambda cell, ours, kernels: ours == "" and "To exit: use 'exit', 'quit', or Ctrl-D." in kernels,
    ),
    Known(
        "IPython compiles a cell several times, and repeats the compiler's warnings",
        "stderr",
        lambda cell, ours, kernels: "SyntaxWarning" in ours and kernels.endswith(ours),
    ),
    Known(
        "Python 3.13 calls unfinished code _IncompleteInputError for IPython, which asks it to",
        "error",
        lambda cell, ours, kernels: kernels == "_IncompleteInputError: incomplete input",
    ),
    Known(
        "the kernel fails to show why a representation failed",
        "error",
        lambda cell, ours, kernels: (ours, kernels) == ("", "NoneType: None"),
    ),
    Known(
        "the kernel fails to show why a representation failed",
        "stderr",
        lambda cell, ours, kernels: kernels == "" and "_repr_" in cell and "Error: " in ours,
    ),
    *(
        Known(
            "a result has a repr also where its value has shown itself",
            field,
            lambda cell, ours, kernels: "_ipython_display_" in cell and kernels in ("", "()"),
        )
        for field in ("value", "value_mimes")
    ),
    *(
        Known("%config InteractiveShell works here; a kernel's shell has another name", field, _configures)
        for field in ("error", "value", "value_mimes")
    ),
]


def reason_of(cell: str, field: str, ours: object, kernels: object) -> str:
    """Return why a field of a cell's outcome differs; empty if nobody knows."""
    for known in KINDS:
        if known.field == field and known.matches(cell, str(ours), str(kernels)):
            return known.reason
    return ""
