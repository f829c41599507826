"""The protocol's frames on the pipes of one worker.

connection        reads and writes frames, routes messages, pauses and resumes reading; the worker's exit
read_size         how much of them is read at once
captured_output   drains what the code writes to fds 1 and 2 past Python
stall             notices a worker that stops inside a frame
"""
