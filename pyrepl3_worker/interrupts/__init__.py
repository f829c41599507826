"""How the worker interrupts code that runs.

signals           the wake-up signal's handler; raises cancels and timeouts inside the code
timers            one helper thread for timeouts and delayed flushes
child_processes   kills processes that a cancelled cell has started
"""
