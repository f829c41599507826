"""Frames between this process and the client.

transport   the only reads and writes of the protocol
stdio       moves fds 0 and 1 out of the code's reach, captures 1 and 2
first_protocol  leaves out what a client of protocol 1 does not know
busy_poll   polls for the next message for a moment before the loop sleeps
"""
