"""Calls that the code makes to its host.

calls     host functions and `input()`: their ids, how a caller waits
pending   a call that has been sent and has no answer yet
"""
