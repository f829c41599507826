"""What a fault run does: the cells of a session, and which fault comes in which cell. The seed decides."""

import random
from enum import StrEnum
from typing import Final

BRACE: Final = "now comes a long frame"
"""A cell prints this before it sends one; the program then stands still, so that the pipe fills up."""
LONG: Final = 3_000_000
"""Bytes of such a frame: more than the pipe and its reader take together."""


class Kind(StrEnum):
    """What a cell does."""

    PLAIN = "plain"
    GATHER = "gather"
    TASKS = "tasks"
    NOISY = "noisy"
    BIG = "big"
    LONG_CALL = "long call"
    LONG_RESULT = "long result"
    FAILING = "failing"


class Fault(StrEnum):
    """What is done to a session during a cell."""

    KILL_WORKER = "workers killed"
    STOP_WORKER = "workers stopped and killed"
    PAUSE_WORKER = "workers stopped and continued"
    CUT_FRAME = "workers killed while they sent a long frame"
    KILL_PROGRAM = "programs killed"
    FULL_DISK = "times the disk was full"
    CLOSE_SESSION = "sessions closed under their cell"
    LOSE_LEASE = "leases lost"


_WEIGHTS: Final = {
    Kind.PLAIN: 60,
    Kind.GATHER: 15,
    Kind.TASKS: 15,
    Kind.NOISY: 6,
    Kind.BIG: 4,
    Kind.LONG_CALL: 1,
    Kind.LONG_RESULT: 1,
    Kind.FAILING: 6,
}
_RATES: Final = {
    Fault.KILL_WORKER: 0.03,
    Fault.STOP_WORKER: 0.005,
    Fault.PAUSE_WORKER: 0.01,
    Fault.KILL_PROGRAM: 0.01,
    Fault.FULL_DISK: 0.004,
    Fault.CLOSE_SESSION: 0.01,
    Fault.LOSE_LEASE: 0.01,
}
LONG_FRAMES: Final = (Kind.LONG_CALL, Kind.LONG_RESULT)
FEWEST_CELLS: Final = len(Kind) + len(Fault)
"""So many cells have room for each kind of cell and each fault."""

_BEGINNING: Final = """
n = {n}
answer = input('input {n}? ')
receipt = pay({n})
try:
    charge({n})
except Exception as error:
    # Its program died in the call: this one must not be made again, and is not.
    assert type(error).__name__ == 'CapabilityOutcomeUnknown', error
confirmed = confirm({n}, receipt)
total = globals().get('total', 0) + n
seen = globals().get('seen', [])
seen.append((n, answer, receipt, confirmed))
alias = seen
print('cell', n)
"""
_GATHER: Final = """
import asyncio
async def errand(k):
    receipt = await pay(1000 * {n} + k)
    await asyncio.sleep(0.001 * ((7 * k + {n}) % 3))
    return receipt + await confirm({n}, receipt)
receipts = await asyncio.gather(*(errand(k) for k in range(4)))
seen = globals().get('seen', [])
seen.append(receipts)
receipts
"""
_TASKS: Final = """
import asyncio
async def aside():
    receipt = await pay({n})
    return await confirm({n}, receipt)
async def beat():
    await asyncio.sleep(0.02)
    globals()['_beats'] = globals().get('_beats', 0) + 1
task = asyncio.create_task(aside())
await asyncio.sleep(0)
answer = input('input {n}? ')
done = await task
task = asyncio.create_task(beat())  # outlives its cell
del task
seen = globals().get('seen', [])
seen.append((answer, done))
done
"""
_NOISY: Final = """
import os
for line in range(2000):
    print('noise of cell {n}, line', line)
os.write(2, b'error of cell {n}\\n' * 2000)
loud = {n}
"""
_BIG: Final = """
import hashlib, random
blob_{place} = bytearray(random.Random({n}).randbytes(1_000_000))
blobs = globals().get('blobs', {{}})
blobs[{place}] = blob_{place}
hashlib.sha256(blob_{place}).hexdigest()
"""
_LONG_CALL: Final = """
receipt = pay({n})
print({brace!r}, flush=True)
delivered = deliver({n}, b'a' * {long})
confirmed = confirm({n}, delivered)
"""
_LONG_RESULT: Final = """
receipt = pay({n})
confirmed = confirm({n}, receipt)
print({brace!r}, flush=True)
'r' * {long}
"""
_TEXTS: Final = {
    Kind.PLAIN: _BEGINNING + "total",
    Kind.GATHER: _GATHER,
    Kind.TASKS: _TASKS,
    Kind.NOISY: _NOISY,
    Kind.BIG: _BIG,
    Kind.LONG_CALL: _LONG_CALL,
    Kind.LONG_RESULT: _LONG_RESULT,
    Kind.FAILING: _BEGINNING + "raise ValueError('cell {n} was to fail')",
}
NAMESPACE: Final = """
import hashlib
_kept = {
    name: [type(value).__name__, hashlib.sha256(repr(value).encode()).hexdigest()]
    for name, value in sorted(globals().items())
    if not name.startswith('_') and name not in ('In', 'Out') and not callable(value)
    and type(value).__name__ != 'module'
}
_kept['identity'] = [
    'alias' not in globals() or alias is seen,
    all(blob is globals()[f'blob_{place}'] for place, blob in globals().get('blobs', {}).items()),
]
_kept
"""
"""Code whose value is the namespace: type and digest of each name, and whether two name one object still."""


def kinds_of(seed: int, cells: int) -> list[Kind]:
    """Return the kind of each cell: each kind at least once, where there are enough cells."""
    chance = random.Random(f"{seed}/cells")
    rest = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=max(0, cells - len(Kind)))
    kinds = [*Kind, *rest][:cells]
    chance.shuffle(kinds)
    return kinds


def code_of(kind: Kind, n: int) -> str:
    """Return the code of cell number `n`."""
    return _TEXTS[kind].format(n=n, place=n % 3, brace=BRACE, long=LONG)


def faults_of(seed: int, session: int, kinds: list[Kind]) -> dict[int, Fault]:
    """Return the faults of a session by the cells in which they come, each fault at least once."""
    chance = random.Random(f"{seed}/faults/{session}")
    long = [n for n, kind in enumerate(kinds) if kind in LONG_FRAMES]
    cut = chance.sample(long, k=(len(long) + 1) // 2)
    faults = dict.fromkeys(cut, Fault.CUT_FRAME)
    others = [n for n in range(len(kinds)) if n not in faults]
    chance.shuffle(others)
    for fault, rate in _RATES.items():
        for _ in range(max(1, round(rate * len(kinds)))):
            if others:
                faults[others.pop()] = fault
    return faults
