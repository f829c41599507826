"""Python objects as fields of messages.

reprs           values as text of limited length
display         MIME bundles, `display()`, open figures
exceptions      exceptions as `error` messages: frames, notes, causes, members
static_lookup   attributes, read without running the code's descriptors
"""
