"""A session's namespace as bytes, and back.

checkpointer   creates checkpoints: what has changed, which names together, within which time
save           the namespace to a manifest and blobs         restore       the way back
manifest       what a checkpoint consists of, its version    history       `In`, `Out`, numbering of cells
pickler        pickles by name what the worker has, by value what the code has made
by_value       functions and classes of cells                reducers      types that pickle refuses
scope          which objects belong to whom                  grouping      names that share objects
fingerprints   has a value changed?                          time_budget   objects' own code may hang
unsaveable     why something cannot be saved, in words
"""
