"""From the command line to a running session.

serve   waits for `hello` on the claimed fds, then runs the session
"""
