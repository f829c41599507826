"""The same suite as somebody without privileges, where this one runs as root."""

import os
from pathlib import Path

import pytest

from tests.confinement.unprivileged import BOUNDED, WHOLE, run_as_nobody


@pytest.mark.skipif(os.getuid() != 0, reason="these tests run without privileges already")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", [BOUNDED, pytest.param(WHOLE, marks=pytest.mark.long)], ids=len)
def test_the_suite_passes_without_privileges(tmp_path: Path, suite: tuple[str, ...]) -> None:
    log = tmp_path / "log"
    status = run_as_nobody(suite, log)
    output = log.read_text(errors="replace")
    assert status == 0, output[-7000:]
    assert " passed" in output
