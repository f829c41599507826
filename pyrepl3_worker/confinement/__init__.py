"""The boundary between a worker and the machine. The worker sets it up itself, before any user's code runs.

    apply            `confine`: reads the client's order (`--confine`), and carries it out
    rlimits          rlimits, no new privileges, a session of its own: at the levels "limits" and "strict"
    siblings         no children for the worker's parent: at the level "limits"
    strict           the level "strict": its steps in the only possible order, and a check of the result
      namespaces       user, mount, PID and network namespaces; a keeper process outside, an init inside
      mounts           a root directory that shows only the visible paths
        trees          what is attached there: overlays, or copies of mounts
      landlock         a second boundary around files, and one around signals and TCP ports
      seccomp          a filter that allows the system calls of a list, and judges arguments of some
        syscall_table    the list
    filter_program   programs of such filters, instruction by instruction
      visible_paths    the paths that Python and programs need
    in_force         what is really in force in this process, for the message `ready`
    syscalls         system calls by number, with errors as exceptions

A confined process stays confined, and so does everything that it starts. A worker of level "none" loads
only `apply` and `in_force`.
"""
