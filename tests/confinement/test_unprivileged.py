"""Runs the confinement tests once more without privileges, if they run as root."""

import os
from pathlib import Path

import pytest

from tests.confinement.unprivileged import ALL_TESTS, QUICK_TESTS, run_as_nobody


@pytest.mark.skipif(os.getuid() != 0, reason="these tests run without privileges already")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", [QUICK_TESTS, pytest.param(ALL_TESTS, marks=pytest.mark.long)], ids=len)
def test_the_suite_passes_without_privileges(tmp_path: Path, suite: tuple[str, ...]) -> None:
    log = tmp_path / "log"
    status = run_as_nobody(suite, log)
    output = log.read_text(errors="replace")
    assert status == 0, output[-7000:]
    assert " passed" in output
