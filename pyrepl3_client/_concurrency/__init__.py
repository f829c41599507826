"""Owners of tasks, threads for blocking functions, and waits that a cancel does not break.

    task_owner      every background task of a session has an owner, which awaits its end
    uncancellable   waits that go on when the waiting task is cancelled
    carried_error   errors that would end a loop or a wait, in a form that does not
    thread_pool     threads for synchronous host functions and input handlers
    outcome         what a call in another thread came to; Ctrl-C may strike its wait anywhere
    loop_thread     an event loop in a thread of its own, for `pyrepl3_client.sync`
    owner           in which process and on which event loop something may be used
    exit_guard      ends what is still open when the interpreter exits

It knows nothing of sessions.

anyio's cancel scopes bound what ends in the block that began it, off the hot path: a pool that gets warm,
the wait for a checkpoint, and whatever must not be cancelled. The rest of anyio does not carry here. A task
group ends where it was entered, and a session may be closed in another task (`task_owner`). A scope cancels
in each turn of the loop until its block ends, while a host function that is cancelled may take time to
clean up. A blocking portal lets go of what it runs at Ctrl-C (`loop_thread`), and `to_thread` keeps the
interpreter from ending (`thread_pool`). Memory streams count items, and messages are counted in bytes
(`_execution.event_log`).
"""
