"""A process that has imported what workers need and forks them: `python -m pyrepl3_worker.fork_server`.

__main__      requests from the client, one fork each
clone         what a forked child does to become a worker
fork_safety   whether forking is safe: threads, files, sockets, devices
"""
