"""What a forked child does to become a worker: its random numbers, its fds, its session."""

import os
import sys
from typing import NamedTuple, NoReturn

from pyrepl3_worker import __main__ as worker
from pyrepl3_worker.fork_server.clone import set_traceable


class WorkerLaunch(NamedTuple):
    """The fds and the command line of a worker that has just been forked."""

    fds: list[int]
    arguments: list[str]


def become_worker(launch: WorkerLaunch) -> NoReturn:
    """Run the worker in this process, as if it had been started as one."""
    set_traceable(traceable=True)
    os.setsid()
    reseed_random()
    *standard, out, err = launch.fds
    for target, fd in enumerate(standard):
        os.dup2(fd, target)
        os.close(fd)
    arguments = [*launch.arguments, "--capture", f"{out},{err}"]
    worker.run(arguments)
    raise AssertionError("a worker ends its process itself")


def reseed_random() -> None:
    """Seed what must differ between forked workers. `random` does so itself, by os.register_at_fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    if "multiprocessing" in sys.modules:
        from multiprocessing import process

        process.current_process().authkey = os.urandom(32)
