"""How the worker interrupts code that runs.

signals           the wake-up signal's handler; raises cancels and timeouts inside the code
line_interrupter  raises at every line, for code that swallows the first, and on the blocking thread
swallowers        where Python drops what is raised, so that it has to be raised again
timers            one helper thread for timeouts and delayed flushes
child_processes   watches processes start and signals go; kills what a cancelled cell has started
own_signals       tells the client when the code ends its own worker by a signal
"""
