"""pyrepl3 beside its peers, measured in one run: `python -m benchmarks --help`.

    subjects/   what is measured, one file each, with the figures to reach
    peers/      what it is measured against, each behind a small typed adapter
    measure     interleaves the contenders and sums up their samples
    report      the table and the JSON
    stores      where durable sessions record, for as long as they are measured
    scale       how much of everything: a full run, a quick one

Every figure is taken in the same run as the one it is compared with, in turns (A B A B), and ratios
are formed pair by pair: a machine that slows down for a while slows both.
"""
