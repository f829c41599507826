"""What is measured. Goals are those that the project set itself; a miss is printed as a miss."""

from collections.abc import Mapping

from benchmarks.measure import Subject
from benchmarks.subjects import (
    cancel,
    capability,
    checkpoint,
    durable,
    memory,
    output,
    pipelined,
    pool,
    recovery,
    round_trip,
    startup,
    transfer,
)

_MODULES = (
    round_trip,
    capability,
    pipelined,
    output,
    startup,
    memory,
    cancel,
    durable,
    checkpoint,
    recovery,
    pool,
    transfer,
)

SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject for module in _MODULES for subject in module.SUBJECTS
}
