"""The output of the code: in order, attributed to its execution, within `max_output_bytes`.

collector collects, attributes (late output too), cuts and sends
displays  displays: whose they are, and whether they fit
streams   the code's `sys.stdout` and `sys.stderr`
"""
