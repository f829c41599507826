"""Random programs of real sessions, whose workers are killed: what comes back is what was there.

Beside `tests/worker/checkpoint/oracle`, which has more kinds of objects and runs in one process, these programs
change the process, the session's own names and the work directory, and go through a worker's death.

- `settings`: what cells change in their process, and how it is read.
- `programs`: the strategy.
- `walker`: describes what is left, in the worker.
- `runs`: runs a program undisturbed and killed, and compares.
- `find_fault`: looks for a fault that was put back (`faults/*.patch`).
"""
