"""What a session has on record. It knows nothing of sessions, workers or stores.

protocol         `Journal`, and the data in it: entries, calls, checkpoints
memory           a record in this process's memory
id_conflict      the error for other code under an id that is taken
outcomes         an execution's outcome as bytes
assigned_names   which names a cell's code assigns
"""
