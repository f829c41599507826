"""Worker processes: started, watched and ended. It knows nothing of sessions.

spawn                 starts a worker from the command line
fork_server           forks workers from a warm process, where that is safe
fork_server_process   that process, and the requests to it
shared_fork_server    one fork server for all sessions of a program that have lost workers
idle_worker           the warm worker of a pool that waits for a session
worker                a process that has been started: pipes, exit status, kill
environment           environment variables and the confinement argument
process_tree          reads /proc: children, memory, CPU time, start time
"""
