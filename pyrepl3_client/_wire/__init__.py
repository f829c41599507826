"""The protocol's frames on the pipes of one worker.

connection        reads and routes messages; pauses and resumes reading
writer            writes frames, several in one system call
captured_output   drains what the code writes to fds 1 and 2 past Python
stall             notices a worker that stops inside a frame
"""
