"""The boundary between a worker and the machine, drawn by the worker itself before any code is near.

    apply            reads the order that the client gives, and carries it out
    rlimits          rlimits, no new privileges, a session of its own: for every worker but "none"
    strict           all of "strict", in the order in which it can be done
      namespaces       a keeper outside, an init inside, and a network, processes and files of its own
      mounts           the root directory that shows nothing else
      landlock         the second wall around files, and around signals and TCP ports
      seccomp          system calls that no code needs
      visible_paths    what Python needs to see
    in_force         what is really in force in this process, for `ready`
    syscalls         system calls by number

A process that is confined stays so, with all that it will ever start. Nothing here is loaded by a worker of
level "none".
"""
