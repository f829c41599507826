"""IPython's syntax, imported by sessions that ask for it. The only room that imports IPython.

syntax    cells as Python, and IPython's events around them: what the executor and the session need
shell     IPython's InteractiveShell over the session's namespace
timing    `%time` and `%%time` of code that awaits
commands  runs the commands of `!` and `%%bash`: streamed, and ended with the cell
"""
