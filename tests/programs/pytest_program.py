"""Runs a folder of tests by pytest, and writes each one's outcome to a file. It is a script and a cell.

Variables of the environment name them: `PROGRAM_IMPORTED` (what stands first in `sys.path`), `PROGRAM_TESTS`,
`PROGRAM_SETTINGS` (a file for pytest) and `PROGRAM_OUTCOMES`.
"""

import json
import os
import sys
from typing import Any, TextIO


class Outcomes:
    """A plugin that writes a line for each phase of a test that does not pass, and for each that does."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, "unfinished", "")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            outcome = "expected to fail: " + report.outcome if hasattr(report, "wasxfail") else report.outcome
            self._write(report.nodeid, outcome, report.longreprtext)

    def pytest_collectreport(self, report: Any) -> None:
        if not report.passed:
            self._write(report.nodeid, f"collection {report.outcome}", report.longreprtext)

    def _write(self, test: str, outcome: str, text: str) -> None:
        print(json.dumps([test, outcome, text]), file=self._file, flush=True)


if __name__ == "__main__":
    import pytest

    sys.path.insert(0, os.environ["PROGRAM_IMPORTED"])
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    tests = os.environ["PROGRAM_TESTS"]
    options = ["-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0"]
    options += ["-c", os.environ["PROGRAM_SETTINGS"], "--rootdir", tests, tests]
    with open(os.environ["PROGRAM_OUTCOMES"], "w") as file:
        pytest.main(options, plugins=[Outcomes(file)])
