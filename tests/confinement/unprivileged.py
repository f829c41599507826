"""A run of the suite as somebody without privileges, beside the one as root: it takes the other processor."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyrepl3_worker.confinement import kernel

NOBODY = 65534
SUITE = ("test_escapes.py", "test_levels.py", "test_payloads.py", "test_ruin.py", "test_trees.py")
HERE = Path(__file__).parent
ROOT = str(HERE.parent.parent)
PROGRAM = (
    "import os, sys; from unprivileged import become_nobody; "
    "become_nobody(sys.argv[1].split(':')); "
    "os.execv(sys.executable, "
    "[sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *sys.argv[2:]])"
)


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


@dataclass
class Run:
    """Such a run, under way."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, log: Path) -> Self:
        """Begin; what it prints goes to a file."""
        folders = sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, ROOT)})
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, ":".join(folders), "--basetemp=/tmp/all", "--rootdir", ROOT,
                 "-c", f"{ROOT}/pyproject.toml", *(str(HERE / name) for name in SUITE)],
                env={**os.environ, "PYTHONPATH": str(HERE), "HOME": "/tmp", "TMPDIR": "/tmp"},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return cls(process, log)

    def result(self) -> tuple[int, str]:
        """Wait for its end; give its status and what it printed."""
        return self.process.wait(), self.log.read_text(errors="replace")

    def end(self) -> None:
        """End it, if that has not come."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
