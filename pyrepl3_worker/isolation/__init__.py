"""The worker's own ground, out of reach of the code's replacements. It imports nothing at its top.

private_builtins   the worker's modules and asyncio look builtins up in a copy
builtins_guard     puts back what the code has replaced, between cells
"""
