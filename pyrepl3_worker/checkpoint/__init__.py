"""A session's namespace as bytes, and back. Start reading at `Checkpointer` in `checkpointer`.

checkpointer   answers checkpoint and restore requests; splits large checkpoints into several frames
save           `CheckpointWriter`: pickles a namespace, in groups of names that share objects
restore        `CheckpointReader`: loads the groups back into a namespace
manifest       what a checkpoint consists of: the manifest, its version, and blobs by their digests
digests        SHA-256, without OpenSSL as long as there is little to digest
earlier        keeps the last saved values of names that could not be saved in time
history        saves and restores `In`, `Out` and the numbering of cells
work_directory saves and restores the files of a session that has a directory to itself
pickler        the pickler and unpickler: the session's definitions by value, libraries' by reference
by_value       how functions, classes and exceptions of cells are pickled and made again
struct_classes the same for classes of msgspec's
reducers       how types of the standard library and NumPy views are pickled, where pickle would fail
makers         makes locks, queues, weak references, pools and generators again, by kind
iterators      the same for iterators of `itertools`
resource_makers  the same for open files, databases and mapped arrays
memory_maps    the same for mapped memory, and for arrays in the memory of other objects
scope          to whom a function or class belongs: to the session, to a module or to the worker
grouping       which names have to be pickled together, because they share objects
fingerprints   tells whether a constant or a function has changed, without pickling it
process_state  saves and restores the process's state (cwd, environment, …) by savers; `register` adds one
initial_state  what that state was when the session began
interpreter_state, runtime_state, logging_state, library_state
               the savers: for the interpreter and its library, for hooks and switches, for loggers, for
               NumPy, pandas, …
foreign_code   tells whose pickling runs code of the user's or a library's, and has that code timed
loadable       leaves out what can't be loaded again, name by name
trial          loads in a child what only foreign code can load, before it is called saved
position       what a checkpoint or restore is at, told to the client when it takes long
portability    tells what another version of Python can load
time_budget    stops objects' own code (`__reduce__`, `__setstate__`) when it takes too long
unsaveable     the reasons why an object cannot be saved, in words
"""
