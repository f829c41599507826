"""Starts strictly confined workers: run by its path, not imported.

    BASE_PYTHON -I -S start.py WORKER_PARENT SCHEMAS_PARENT PARENT REQUEST_FD FDS
    BASE_PYTHON -I -S start.py WORKER_PARENT SCHEMAS_PARENT PARENT --stand IDLE_SECONDS

The first two are the folders in which the packages stand. The first form becomes the worker of one request,
with the fds that belong to it (see `become`). The second stands by, and clones itself for each request (see
`standing`).
"""

import sys


def main() -> None:
    """Run the worker that a request describes."""
    worker, schemas, pid, first, last = sys.argv[1:]
    parent = int(pid)
    # Behind the standard library: nothing of it is to be looked for there.
    sys.path += dict.fromkeys((worker, schemas))
    if first == "--stand":
        from pyrepl3_worker.launcher.standing import stand_by

        file, fds = stand_by(parent, int(last))
    else:
        file, fds = int(first), [int(fd) for fd in last.split(",")]
    from pyrepl3_worker.launcher.become import become_worker

    become_worker(parent, file, fds)


if __name__ == "__main__":
    main()
