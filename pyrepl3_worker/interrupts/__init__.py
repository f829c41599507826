"""Getting into code that runs.

signals           the wake-up signal's handler; raises cancels and timeouts inside the code
timers            one helper thread for timeouts and delayed flushes
child_processes   ends processes that a cancelled cell has started
"""
