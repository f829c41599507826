"""Starts one strictly confined worker: run by its path, not imported.

    BASE_PYTHON -I -S start.py WORKER_PARENT SCHEMAS_PARENT REQUEST_FD

The first two are the folders in which the packages stand; the third holds the request (see `become`).
"""

import sys


def main() -> None:
    """Run the worker that the request describes."""
    *folders, request = sys.argv[1:]
    # Behind the standard library: nothing of it is to be looked for there.
    sys.path += dict.fromkeys(folders)
    from pyrepl3_worker.launcher.become import become_worker, read_request

    become_worker(read_request(int(request)))


if __name__ == "__main__":
    main()
