"""Runs the confinement tests as the user nobody, without privileges."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from pyrepl3_worker.confinement import syscalls

NOBODY = 65534
QUICK_TESTS = ("test_escapes.py", "test_levels.py", "test_memory.py")
ALL_TESTS = (
    *QUICK_TESTS, "test_start.py", "test_policy_paths.py", "test_argument_encoding.py", "test_damage.py",
    "test_network.py", "test_tree_limits.py", "test_standing_launcher.py",
)  # fmt: skip
HERE = Path(__file__).parent
ROOT = str(HERE.parent.parent)
PROGRAM = (
    "import os, sys; from unprivileged import become_nobody; "
    "become_nobody(sys.argv[1].split(':')); "
    "os.execv(sys.executable, "
    "[sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', '-p', 'no:xdist', *sys.argv[2:]])"
)


def become_nobody(folders: list[str]) -> None:
    """Become the user nobody; mount folders that only root can reach where it can, for this process only."""
    os.unshare(os.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    trees = [(folder, syscalls.open_tree(folder)) for folder in folders]
    # A private folder for temporary files, which vanishes with this process.
    syscalls.mount("none", "/tmp", "tmpfs", 0, "mode=1777")
    for top in {str(Path(folder).parents[-2]) for folder in folders}:
        if not os.stat(top).st_mode & 0o001:
            syscalls.mount("none", top, "tmpfs", 0, "mode=755")
    for folder, tree in trees:
        os.makedirs(folder, exist_ok=True)
        syscalls.attach_tree(tree, folder)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def run_as_nobody(suite: tuple[str, ...], log: Path) -> int:
    """Run these test files; return the exit status. The output goes to a file."""
    folders = sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, ROOT)})
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, ":".join(folders), "--basetemp=/tmp/all", "--rootdir", ROOT,
             "-c", f"{ROOT}/pyproject.toml", *(str(HERE / name) for name in suite)],
            env={**os.environ, "PYTHONPATH": str(HERE), "HOME": "/tmp", "TMPDIR": "/tmp"},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
