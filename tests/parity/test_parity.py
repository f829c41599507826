"""A part of `make parity`: two notebooks in a Jupyter kernel and in a session."""

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("IPython", "ipykernel", "jupyter_client")),
    reason="the group `parity` is not installed",
)


def test_notebooks_do_here_what_they_do_in_a_kernel() -> None:
    """In a process of its own: the kernel's client leaves sockets and threads to the interpreter's end."""
    names = ["--notebook", "magics", "--notebook", "errors"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity", *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " cells: 0 differences that nothing explains" in done.stdout
