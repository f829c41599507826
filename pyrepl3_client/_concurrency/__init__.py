"""Owners of tasks, threads for blocking functions, and waits that a cancel does not break.

    task_owner      every background task of a session has an owner, which awaits its end
    uncancellable   waits that go on when the waiting task is cancelled
    carried_error   errors that would end a loop or a wait, in a form that does not
    thread_pool     threads for synchronous host functions and input handlers
    loop_thread     an event loop in a thread of its own, for `pyrepl3_client.sync`
    owner           in which process and on which event loop something may be used
    exit_guard      ends what is still open when the interpreter exits

It knows nothing of sessions.
"""
