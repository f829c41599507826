"""The worker: a process that runs one session's code. The parent starts it; see `PROTOCOL.md`.

__main__      argv, claim the fds, run the session     stdio         fds the code can't reach
session       the one loop: messages to handlers       transport     the only reads and writes
executor      picks a mode, runs, gives an outcome     analysis      await and blocking detection
compiler      source to code, and its cache            namespace     the live __main__ dict
cancellation  doorbell, deadlines, escalation          alarms        one helper thread for delays
output        attribution, bounds, flushing            calls         input() and capabilities
coroutines    tasks of the code, asyncio.run           flow          who runs, and its place
failures      exceptions to wire                       provided      stand-ins given to the code
streams, limits, imports, metrics, reprs, display, completion, checkpoint
"""
