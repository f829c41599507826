"""Answers an editor's questions about the namespace, without running any of the user's code.

completion           `complete` and `inspect`: what could stand at the cursor, and what stands there
signatures           signatures, docstrings and sources of live objects
ufuncs               signatures and docstrings of NumPy's ufuncs
scanner              splits unfinished source before a cursor into tokens
importable_modules   names of modules for completion after `import`
changes              what a cell has done to the namespace
"""
