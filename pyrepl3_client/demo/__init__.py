"""A tour in some ten seconds: `python -m pyrepl3_client.demo`.

__main__         the steps            printer   how they look
survival         workers and programs that are killed
killed_program   the program that is killed
speed            round trips, spawn time and memory on this machine
"""
