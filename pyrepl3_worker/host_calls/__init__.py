"""Calls that the code makes to its host.

calls       host functions and `input()`: their ids, how a caller waits, what is given up
pending     the awaitable of a call, and the answer that it waits for
functions   what stands for a host function in the code: kind, signature, text
errors      what a host function has raised, as the code gets it
"""
