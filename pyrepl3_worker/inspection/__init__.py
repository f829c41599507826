"""Answers an editor's questions about the namespace; of the user's code, only what is for editors is run.

completion           `complete` and `inspect`: what could stand at the cursor, and what stands there
signatures           signatures, docstrings and sources of live objects
ufuncs               signatures and docstrings of NumPy's ufuncs
own_answers          what `__dir__` and the like say, where they may be called
scanner              splits unfinished source before a cursor into tokens
importable_modules   names of modules for completion after `import`
changes              what a cell has done to the namespace
"""
