"""The start of a strictly confined worker: its boundary stands before its interpreter is started.

The boundary is drawn by a process of this program's own Python, without `site` and with an empty environment,
so that it reads nothing that code of an earlier worker can have written (`pyrepl3_worker.launcher`). It then
becomes the worker: the interpreter of the session is executed in it. That process is started for the one
worker, or it is a clone of one that stands by (`standing_launcher`).
"""

import errno
import marshal
import os
import shutil
from collections.abc import Sequence
from typing import Final

import msgspec

from pyrepl3_client._launch.directories import WorkerDirectories
from pyrepl3_client._launch.environment import confinement_of
from pyrepl3_client._launch.interpreter import base_python, interpreter_command
from pyrepl3_client._launch.policy_paths import HeldPath, as_request
from pyrepl3_client._launch.python_view import find_view, our_folders
from pyrepl3_client.config import WorkerConfig, is_unicode
from pyrepl3_client.errors import SpawnError

_SCRIPT: Final = "launcher/start.py"
_LIBRARIES: Final = "LD_LIBRARY_PATH"


class LaunchRequest:
    """What a launcher is asked for; `close` is to be called once it has it."""

    def __init__(
        self,
        config: WorkerConfig,
        environment: dict[str, str],
        paths: Sequence[HeldPath],
        ends: Sequence[int],
        directories: WorkerDirectories,
    ) -> None:
        """Make a file for the request.

        Args:
            config: describes worker and boundary.
            environment: the variables of its interpreter.
            paths: those of the policy.
            ends: the worker's ends of its pipes, in the order of `NewWorkerPipes.worker_ends`.
            directories: have the way by which the worker hands directories over.

        Raises:
            SpawnError: pyrepl3 is in no folders of files.
            OSError: there is no such interpreter, or no room for another fd.
        """
        self._config = config
        self._directories = directories
        self._written = False
        self._environment = environment
        self._paths = paths
        self._folders = _our_folders()
        _check_program(config.python, environment)
        self._command = interpreter_command(config, "pyrepl3_worker")
        if config.warm:
            self._command += ["--warm", ",".join(config.warm)]
        frames_in, frames_out, _, *captured = ends
        self.fds = [frames_in, frames_out, *captured, directories.workers_end, *(held.fd for held in paths)]
        """What belongs to it, in the order of `pyrepl3_worker.launcher.become.read_request`."""
        self.file = os.memfd_create("pyrepl3-request")
        """Holds the request, when it is written."""

    def write(self) -> None:
        """Write the request. Its launcher waits for that, and may be started before. Idempotent.

        Raises:
            OSError: there is no room for it, or for an fd.
        """
        if self._written:
            return
        directory = os.path.abspath(self._config.start_directory or ".")
        view = find_view(self._config.python, self._environment, directory)
        given, later = _absolute_paths(self._environment, directory)
        request = {
            "command": list(map(os.fsencode, self._command)),
            "environment": {os.fsencode(name): os.fsencode(text) for name, text in given.items()},
            "later": later,
            "order": msgspec.structs.asdict(confinement_of(self._config)),
            "python": [*view.all(), *self._folders],
            "live": [each for path in view.added for each in (path, os.path.realpath(path))],
            "pins": as_request(self._paths),
        }
        with open(self.file, "wb", closefd=False) as file:
            file.write(marshal.dumps(request))
        self._directories.say_written()
        self._written = True

    def command(self) -> list[str]:
        """Return the command of a launcher for this request alone, which inherits its file and its fds."""
        return [*launcher_command(), str(os.getpid()), str(self.file), ",".join(map(str, self.fds))]

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


def launcher_command() -> list[str]:
    """Return the command that runs a launcher, without its last arguments.

    Raises:
        SpawnError: pyrepl3 is in no folders of files.
    """
    worker, schemas, _ = _our_folders()
    folders = [os.path.dirname(folder) for folder in (worker, schemas)]
    return [base_python(), "-I", "-S", f"{worker}/{_SCRIPT}", *folders]


def launcher_environment() -> dict[str, str]:
    """Return a launcher's variables: what this program's Python may need to be found, and nothing else."""
    return {_LIBRARIES: os.environ[_LIBRARIES]} if _LIBRARIES in os.environ else {}


def _our_folders() -> tuple[str, ...]:
    try:
        return our_folders()
    except LookupError as error:
        raise SpawnError(f"no worker can be confined: {error} is not in a folder of files here") from error


def _check_program(python: str, environment: dict[str, str]) -> None:
    """Find out now what would only fail behind the boundary.

    Raises:
        OSError: there is no such program.
    """
    path = os.path.abspath(python) if "/" in python else shutil.which(python, path=environment.get("PATH"))
    if path is None or not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path or python)
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _absolute_paths(environment: dict[str, str], directory: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return variables with those made absolute that hold for another directory, and what they were.

    The interpreter may start in another directory than the one in which the program would have started it.
    """
    text = environment.get("PYTHONPATH", "")
    if not text or not is_unicode(text):
        return environment, {}
    absolute = ":".join(os.path.join(directory, part) for part in text.split(":"))
    if absolute == text:
        return environment, {}
    return {**environment, "PYTHONPATH": absolute}, {"PYTHONPATH": text}
