"""The test suites of libraries, from their source packages: fetched once, into a folder that git ignores."""

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / "build" / "programs"
SETTINGS: Final = FOLDER / "pytest.ini"
"""An empty file: pytest would go up to this project's own settings."""


@dataclass(frozen=True)
class Suite:
    """A library whose source package ships its tests."""

    package: str
    version: str
    imported: str
    """Where its modules are, in the source package."""
    tests: str
    """Where its tests are, in there."""

    @property
    def folder(self) -> Path:
        return FOLDER / f"{self.package}-{self.version}"


SUITES: Final = {
    suite.package: suite
    for suite in (
        Suite("more-itertools", "10.5.0", ".", "tests"),
        Suite("toolz", "1.0.0", ".", "toolz/tests"),
        Suite("attrs", "25.4.0", "src", "tests"),
    )
}


def fetch(suite: Suite) -> None:
    """Have a suite in its folder.

    Raises:
        subprocess.CalledProcessError: pip could not download it.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text("[pytest]\n")
    if suite.folder.exists():
        return
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    pip += ["--dest", str(FOLDER), f"{suite.package}=={suite.version}"]
    subprocess.run(pip, check=True)
    archive = next(FOLDER.glob(f"{suite.package.replace('-', '[-_]')}-{suite.version}.tar.gz"))
    with tarfile.open(archive) as tar:
        top = tar.getnames()[0].split("/")[0]
        tar.extractall(FOLDER, filter="data")
    if FOLDER / top != suite.folder:
        (FOLDER / top).rename(suite.folder)
