"""Python objects as message fields.

reprs           bounded and safe reprs
display         MIME bundles, `display()`, open figures
exceptions      exceptions to `Error` messages: frames, notes, causes, members
static_lookup   attributes read without running the code's descriptors
"""
