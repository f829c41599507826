"""From the command line to a running session.

serve   claims the fds, confines the process, runs the session
"""
