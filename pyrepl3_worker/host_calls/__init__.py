"""Questions that the code asks its host.

calls     host functions and `input()`: their ids, waiting for the answer
pending   a call that has been sent and has no answer yet
"""
