"""The worker: a process that runs the code of one session. The client starts it; see `schemas/PROTOCOL.md`.

The rooms, from the outside in:

    startup/      from `hello` to the running session         fork_server/  forks workers from a warm process
    session/      the event loop, messages to handlers        wire/         the frames on the worker's own fds
    execution/    one cell: run, cancel, its tasks            host_calls/   host functions and `input()`
    interrupts/   signals, timers, child processes            output/       stdout and stderr, in order
    code/         analyse, compile, sources, imports          rendering/    values and exceptions as messages
    inspection/   completion and signatures                   checkpoint/   the namespace to bytes and back
    confinement/  kernel limits around the process            isolation/    the worker's copy of the builtins

    executor.py   AsyncExecutor, usable without a session     namespace.py  the live `__main__` namespace
    config.py     ExecutorConfig                              errors.py     what the executor raises

A room's `__init__.py` is a map and imports nothing, so that a worker starts with what it needs and no more.
"""
