"""A demo in some ten seconds: `python -m pyrepl3_client.demo`.

__main__         the steps, in order
survival         the steps in which a worker and a program are killed
killed_program   the program that is killed
speed            the last step: round trip, start and memory on this machine
printer          prints what the steps show, and checks their claims
"""
