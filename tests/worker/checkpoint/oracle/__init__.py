"""Random programs, checkpointed and killed, beside the same programs undisturbed.

programs   generates them
walker     describes a namespace so that two can be compared; it shares no code with the checkpoint room
runs       runs one program both ways
find_fault searches for a program that shows a fault; `faults/` holds faults of the room as patches
"""
