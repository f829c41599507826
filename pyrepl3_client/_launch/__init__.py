"""Worker processes: how they are started, watched and ended. This room knows nothing of sessions.

worker                what every worker process offers: its pipes, wake, kill, reap, exit status
spawn                 starts a worker with a command line of its own
launcher              has the boundary of a strictly confined worker stand before its interpreter starts
standing_launcher     a process that clones itself for each of those, once there has been one
fork_server           forks workers from a process that has imported everything, where that is safe
fork_server_process   that process, and the requests to it
shared_fork_server    one fork server for all sessions of a loop that have lost a worker
idle_worker           a worker of a pool that waits for its session
stderr_tail           the last lines that a process wrote to its stderr
interpreter           the command line of its interpreter: this program's, or another one
python_view           the folders that an interpreter needs, without running it
policy_paths          the paths of a policy, resolved once for a session
writable_paths        what no policy may let code write to
environment           a worker's environment variables and its confinement argument
shared_segments       what code leaves in the kernel at the level "limits"
process_tree          reads /proc: children, memory, CPU time, start time
"""
