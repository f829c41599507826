"""Builtins for the worker that the code cannot replace.

private_builtins   the worker's modules and asyncio look builtins up in a copy
builtins_guard     puts back what the code has replaced, between cells
after_import       acts on a library's module when it has been imported
"""
