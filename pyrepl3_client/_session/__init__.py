"""One session: a namespace in one worker at a time.

session           what its owner can do: execute, start, cancel, checkpoint, restart
supervisor        its states, its workers, recovery after a death, its end
recorder          between executions and the record
death_policy      what a death means: decided purely
replay            one attempt to bring the namespace back in a new worker
checkpoints       when to create a checkpoint; saving and restoring
queries           ping, stats, complete, inspect, variables
recovery_report   what a recovery has brought back, and what not
open              `open_session`
options           recovery policy, store, `max_attempts`
"""
