"""A process that has imported what workers need and forks them: `python -m pyrepl3_worker.fork_server`.

__main__      requests from the client, one fork each
clone         the system call that forks a child whose parent is the client
forked_worker what a forked child does to become a worker: random numbers, fds
fork_safety   whether forking is safe: threads, files, sockets, devices
"""
