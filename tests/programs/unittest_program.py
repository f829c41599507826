"""Runs a module of tests by unittest, and writes each one's outcome to a file. It is a script and a cell.

The variables `PROGRAM_MODULE` and `PROGRAM_OUTCOMES` of the environment name them.
"""

import importlib
import json
import os
import unittest
from typing import Any, TextIO


class Outcomes(unittest.TestResult):
    """Writes a line when a test begins, and one for each of its outcomes."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file

    def _write(self, test: Any, outcome: str, error: Any = None) -> None:
        text = error or ""
        if not isinstance(text, str):
            text = self._exc_info_to_string(error, test)  # type: ignore[attr-defined]
        print(json.dumps([test.id(), outcome, text]), file=self._file, flush=True)

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self._write(test, "unfinished")

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._write(test, "passed")

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._write(test, "error", err)

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._write(test, "failed", err)

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._write(test, "skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._write(test, "failed as expected")

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._write(test, "passed unexpectedly")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._write(subtest, "failed", err)


if __name__ == "__main__":  # processes that are spawned import the script
    module = importlib.import_module(os.environ["PROGRAM_MODULE"])
    with open(os.environ["PROGRAM_OUTCOMES"], "w") as file:
        unittest.defaultTestLoader.loadTestsFromModule(module).run(Outcomes(file))
