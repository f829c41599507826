"""The differences that stay, each with its reason. `docs/threads-and-loops.md` lists them for users."""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Known:
    """A kind of difference."""

    tests: str
    """A pattern of the tests' ids."""
    inside: str
    """Their outcome in a session."""
    text: str
    """A pattern of what is said of that."""
    reason: str


KNOWN: Final = (
    Known(
        r"test\..*",
        "skipped",
        "PYTHONSAFEPATH changes default sys.path",
        "a worker runs with Python's -P: what lies in the work directory shadows no module of its own",
    ),
    Known(
        r"test\.test_sys\.SysModuleTest\.test_getframemodulename",
        "failed",
        "pyrepl3_worker.execution.event_loop",
        "the session's loop is hidden by a function around TestSuite.run, which has that method's module",
    ),
    Known(
        r"test\.test_trace\.TestCoverage\.test_coverage_ignore",
        "failed",
        "pyrepl3_worker.execution.event_loop",
        "the same function is traced, as is everything that runs",
    ),
    Known(
        r"test\.test_builtin\.PtyTests\.test_input_no_stdout_fileno",
        "failed",
        "a forked child of the worker cannot ask for input",
        "sys.stdin is the session's in a forked child, not fd 0",
    ),
    Known(
        r"test\.test_gc\.GCTests\.test_get_count",
        "failed",
        "not greater than",
        "a list from the free list is not counted, and whether there is one depends on what was freed",
    ),
    Known(
        r"test\.test_import\.SubinterpImportTests\.test_(isolated_config|python_compat)",
        "error",
        "private_builtins._Loader",
        "modules that the worker uses have a loader of its own, which gives them their own builtins",
    ),
)


def reason_of(test: str, inside: str, text: str) -> str:
    """Return why the outcome of a test differs; empty if it is not known."""
    for known in KNOWN:
        if known.inside == inside and re.fullmatch(known.tests, test) and re.search(known.text, text):
            return known.reason
    return ""
