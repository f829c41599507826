"""The same suite as somebody without privileges, where this one runs as root."""

import os

import pytest

from .unprivileged import Run


@pytest.mark.skipif(os.getuid() != 0, reason="these tests run without privileges already")
@pytest.mark.timeout(300)
def test_the_suite_passes_without_privileges(unprivileged_run: Run) -> None:
    status, output = unprivileged_run.result()
    assert status == 0, output[-7000:]
    assert " passed" in output
