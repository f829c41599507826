"""Starts strictly confined workers: draws the boundary first, and runs the session's interpreter behind it.

    start    a script that the client runs by its path, in its own Python without `site`
    become   from a request to the boundary and the interpreter
    standing stands by, and clones itself for each request

An interpreter runs what it finds at its start (`sitecustomize`, .pth files, PYTHONPATH), and code of an
earlier worker may have written it. So nothing that code can write is read before the boundary stands: this
runs with `-I -S` and an empty environment, and imports the standard library and this package alone, not even
msgspec.
"""
