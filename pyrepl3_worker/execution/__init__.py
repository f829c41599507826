"""One cell, from its start to its outcome.

run_cell          runs compiled code, on the loop's thread or awaited
blocking_thread   the one thread for cells that block while the loop has work
execution         the cell that runs now, and the path of a call in it
tasks             tasks of the code, `asyncio.run` inside a cell
canceller         cancels and times out what runs, step by step
host              what an executor needs of whoever owns it
metrics           counts and durations
"""
