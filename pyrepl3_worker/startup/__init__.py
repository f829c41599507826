"""From the command line to a running session.

serve         waits for `hello` on the claimed fds, then runs the session
environment   has `python` and `pip` in a shell of the code's be the worker's own
"""
