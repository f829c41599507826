"""What is measured. Goals are those that the project set itself; a miss is printed as a miss."""

from collections.abc import Mapping

from benchmarks.measure import Subject
from benchmarks.subjects import cancel, capability, memory, output, pipelined, round_trip, startup

SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for module in (round_trip, capability, pipelined, output, startup, memory, cancel)
    for subject in module.SUBJECTS
}
