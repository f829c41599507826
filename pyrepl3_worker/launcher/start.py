"""Starts strictly confined workers: run by its path, not imported.

    BASE_PYTHON -I -S start.py WORKER_PARENT SCHEMAS_PARENT REQUEST_FD FDS
    BASE_PYTHON -I -S start.py WORKER_PARENT SCHEMAS_PARENT --stand PARENT IDLE_SECONDS

The first two are the folders in which the packages stand. The first form becomes the worker of one request,
with the fds that belong to it (see `become`). The second stands by, and clones itself for each request (see
`standing`).
"""

import sys


def main() -> None:
    """Run the worker that a request describes."""
    worker, schemas, first, *others = sys.argv[1:]
    # Behind the standard library: nothing of it is to be looked for there.
    sys.path += dict.fromkeys((worker, schemas))
    if first == "--stand":
        from pyrepl3_worker.launcher.standing import stand_by

        parent, idle_seconds = map(int, others)
        request, fds = stand_by(parent, idle_seconds)
    else:
        request, fds = int(first), [int(fd) for fd in others[0].split(",")]
    from pyrepl3_worker.launcher.become import become_worker, read_request

    become_worker(read_request(request, fds))


if __name__ == "__main__":
    main()
