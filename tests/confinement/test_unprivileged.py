# ruff: noqa: E501 - a program a line reads best
"""The same suite as somebody without privileges, where this one runs as root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyrepl3_worker.confinement import kernel

NOBODY = 65534
SUITE = ("test_escapes.py", "test_levels.py", "test_payloads.py", "test_ruin.py")


def become_nobody(folders: list[str]) -> None:
    """Give up root; folders that only root could reach are put where all can, for this process alone."""
    os.unshare(os.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    trees = [(folder, kernel.open_tree(folder)) for folder in folders]
    # A place for temporary files that is nobody else's, and vanishes.
    kernel.mount("none", "/tmp", "tmpfs", 0, "mode=1777")
    for top in {str(Path(folder).parents[-2]) for folder in folders}:
        if not os.stat(top).st_mode & 0o001:
            kernel.mount("none", top, "tmpfs", 0, "mode=755")
    for folder, tree in trees:
        os.makedirs(folder, exist_ok=True)
        kernel.place_tree(tree, folder)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@pytest.mark.skipif(os.getuid() != 0, reason="these tests run without privileges already")
@pytest.mark.timeout(180)
def test_the_suite_passes_without_privileges() -> None:
    here = Path(__file__).parent
    program = (
        "import os, sys; from test_unprivileged import become_nobody; "
        "become_nobody(sys.argv[1].split(':')); "
        "os.execv(sys.executable, [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *sys.argv[2:]])"
    )
    root = str(here.parent.parent)
    folders = sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, root)})
    done = subprocess.run(
        [sys.executable, "-c", program, ":".join(folders), "--basetemp=/tmp/all", "--rootdir", root,
         "-c", f"{root}/pyproject.toml", *(str(here / name) for name in SUITE)],
        env={**os.environ, "PYTHONPATH": str(here), "HOME": "/tmp", "TMPDIR": "/tmp"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
