"""The protocol's frames on the pipes of one worker.

connection        reads frames and routes messages, writes frames; pauses and resumes reading
captured_output   drains what the code writes to fds 1 and 2 past Python
stall             notices a worker that stops inside a frame
"""
