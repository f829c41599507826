"""Builtins for the worker that the code cannot replace.

private_builtins   the worker's modules and asyncio look builtins up in a copy
own_imports        the worker finds the standard library, whatever files the code's folder holds
late_imports       OpenSSL, which asyncio imports, is loaded when something uses it
builtins_guard     puts back what the code has replaced, between cells
lending            lends the worker to an interpreter that has it not, under private names
lent_start         the script that such an interpreter runs first
unfit              says why an interpreter can't run the worker
after_import       acts on a library's module when it has been imported
"""
