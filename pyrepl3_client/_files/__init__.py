"""Files of a session, opened by this program in the place of its code. Knows nothing of sessions.

view      the folders a worker sees; opens paths in them, and never anything outside
syscalls  openat2, the rights of confined code, the kind of a file system
transfer  copies of any size in chunks, which can be stopped; a new file that appears when it is whole
actions   what a session can be asked for: read, write, list, remove, download, upload
problems  the system's errors as text that names the path and what to do
"""
