"""What a Resonate server does, in the tables of one SQLite file.

server      takes requests as Resonate's `Network`       requests   each kind of request
promises, tasks, schedules                               the state behind them
state       reads and writes the rows                    wire       requests and answers as JSON
mailbox     brings messages as Resonate's `Source`
"""
