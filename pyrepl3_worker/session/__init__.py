"""The one event loop of a worker: messages in, messages out.

session               routes each message to its handler, runs cells in order
result_messages       a cell's outcome as `Result` or `Error`
displays              `display`, `clear_output`, figures, the rich forms of values
queries               ping, stats, complete, inspect; answered at once, whatever runs
requests              requests by kind, with bodies of any size; answered at once
variables             the requests `set` and `get`
background            the request `background`: tasks, threads and processes that the code has left
adjustments           what a warm worker changes for its session
transfer_limit        stops a value's own code that takes too long when it is got
checkpoint_requests   checkpoint and restore
patched_functions     `input`, `time.sleep`, `os.write`, … as the code sees them
process_limits        the memory limit, and the process's memory and CPU time
repair                puts recursion limit, builtins and standard fds back after a cell
"""
