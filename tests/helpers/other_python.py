"""Another version of Python on this machine, in which a worker can run."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest

_ROOT = Path(__file__).parents[2]
_MINORS = tuple(minor for minor in range(12, 16) if minor != sys.version_info.minor)


@dataclass(frozen=True)
class OtherPython:
    """An interpreter, and the PYTHONPATH with which it finds the worker."""

    program: str
    path: str
    name: str
    """As `CPython 3.12`."""


def other_python(config: pytest.Config) -> OtherPython:
    """Return another version of Python; skip the test where there is none, or no msgspec for it.

    msgspec is installed for it once, into pytest's cache.
    """
    assert config.cache is not None
    reason = f"no other Python (3.{', 3.'.join(map(str, _MINORS))}) is here"
    for minor in _MINORS:
        for program in _programs(minor):
            folder = config.cache.mkdir(f"python3.{minor}") / "site-packages"
            path = os.pathsep.join((str(_ROOT), str(_ROOT / "schemas"), str(folder)))
            if not folder.exists():
                made = mkdtemp(dir=folder.parent)
                install = [program, "-m", "pip", "install", "-q", "--target", made, "msgspec"]
                done = subprocess.run(install, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    reason = f"msgspec can't be installed for {program}: {done.stderr.strip()[-200:]}"
                    shutil.rmtree(made)
                    continue
                with suppress(OSError):  # another test process was faster
                    os.rename(made, folder)
            return OtherPython(program, path, f"CPython 3.{minor}")
    pytest.skip(reason)


def _programs(minor: int) -> list[str]:
    found = [shutil.which(f"python3.{minor}")]
    found += map(str, sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")))
    return [
        program
        for program in found
        if program is not None
        and subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0
    ]
