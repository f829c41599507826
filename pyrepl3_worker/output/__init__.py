"""What the code writes: in order, to the right execution, within bounds.

collector collects, attributes (late output too), bounds and flushes
streams   `sys.stdout` and `sys.stderr` of the code
buffer    pieces of text that wait to be sent
"""
