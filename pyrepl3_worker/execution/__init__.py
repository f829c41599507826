"""One cell, from its start to its outcome.

blocking_thread   the one thread for cells that block while the loop has work
execution         one run of a cell, and the path that numbers its calls
tasks             the code's tasks: counted, limited, cancelled at the end
event_loop        `asyncio.run` inside a cell
canceller         cancels and times out what runs, step by step
running           runs compiled code, and the events around it of a syntax such as IPython's
host              what an executor needs of the session around it
metrics           counts and durations
"""
