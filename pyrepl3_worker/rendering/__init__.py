"""Python objects as fields of messages.

reprs           values as text of limited length
display         MIME bundles, `display()`
figures         matplotlib's figures as pictures
libraries       what is done in libraries that display by ways of their own
exceptions      exceptions as `error` messages: frames, notes, causes, members
static_lookup   attributes, read without running the code's descriptors
"""
