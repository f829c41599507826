"""One session: a namespace in one worker at a time.

session           the public face: execute, start, cancel, checkpoint, restart, ping, complete
supervisor        the state machine: workers, their deaths, recovery, restart, close
death_policy      what a death means: decided purely
replay            one attempt to bring the namespace back in a new worker
recorder          the protocol between executions and their record
memory_recorder   records in this process's memory, synchronously
journal_recorder  records in a store, and waits for it
checkpoints       when to create a checkpoint; saving and restoring
recorded_text     what executions wrote, in a store
output_reader     reads what executions have written
queries           ping, stats, complete, inspect, variables
variables         set and got, with bodies of any size
recovery_bar      shows that to a person at a terminal
recovery_progress  what a recovery is at, told while it takes long
recovery_report   what a recovery has brought back, and what not
open              `open_session`
options           recovery policy, store, `max_attempts`
"""
