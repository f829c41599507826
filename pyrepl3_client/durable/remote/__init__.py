"""A session's record in promises alone: for stores that offer nothing else, on a server or in PostgreSQL.

journal        the record as a whole                  connect       how the store is reached
executions     what ran, and what came of it          calls         input and host calls
checkpoints    checkpoints and their blobs            large_values  values in several promises
texts          what executions wrote, beside outcomes
fenced_store   promises under the session's lease

All of a session's promises but its executions' are below one root, `{session}`. The root's task is the
lease: its holder owns the session, and everything is written through `task.fence`, which the store
refuses once the task was taken over.

| promise | its parameter | its value |
|---|---|---|
| `{session}` | – | – (pending for as long as the session is kept) |
| `{session}:owner.{k}` | the k-th owner, and its lease's version | – |
| `{session}:log.{n}` | the n-th execution: id, code, options | its outcome |
| `{session}:log.{n}.{stream}.{k}` | a part of what the n-th execution wrote | – |
| `{session}:log.{n}.attempt.{k}` | – (it stands for a death) | – |
| `{session}:log.{n}.excuse.{k}` | – (it stands for a close, whose death does not count) | – |
| `{session}:log.{n}.call.{m}` | the m-th call: its key, name, digest | its outcome |
| `{session}:log.{n}.call.{m}.again.{k}` | – (it stands for a repetition) | – |
| `{session}:exec.{execution}` | the number of the execution of that id | – |
| `{session}:checkpoint.{k}` | which checkpoints there are after the k-th save | – |
| `{session}:data.{name}.{i}` | part of what is too large for its own place | – (settled: garbage) |

Nothing is searched for, since not every store can search: what is numbered is found by its number, the
newest by doubling steps. Nothing can be deleted; the parts of replaced checkpoints are settled, so that
the store's own retention may take them.
"""
