"""The executions of one session: from `start` to their outcome, on the client's side.

execution        the handle that users get: iterate, await, cancel
record           one execution as the client knows it: what to run, output, outcome, waiting tasks
queue            which executions are queued or run; routes each message to its execution
cancellation     the steps of a cancel, timeouts, and the outcomes that they lead to
answering        the tasks that answer host calls and prompts
serving          what a host function runs for: no session may wait for itself
offers           what a host function is to the code: kind, signature, what is hidden, budget
host_calls       offers, withdraws and calls host functions
call_errors      what the code, and the host's log, are told of an exception
prompts          answers `input()`
call_log         records calls and prompts; answers them from the record in a replay
handlers         who hears output, sees displays and answers prompts
displays         what a result holds of the displays
output           output to handlers and events: order, owner, bounds
kept_output      the whole text of executions whose output was cut, in a file
event_log        what `async for` yields
backpressure     stops reading from the worker while its messages pile up; delivers in order
"""
