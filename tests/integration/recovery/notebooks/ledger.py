# %% a small double-entry ledger
import enum
from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal, getcontext

getcontext().prec = 12
# %%
class Side(enum.Enum):
    DEBIT = 1
    CREDIT = -1

@dataclass
class Entry:
    account: str
    side: Side
    amount: Decimal
    tags: list = field(default_factory=list)
# %%
shared_tags = ["2024", "audit"]
entries = [
    Entry("cash", Side.DEBIT, Decimal("120.50"), shared_tags),
    Entry("sales", Side.CREDIT, Decimal("120.50"), shared_tags),
    Entry("rent", Side.DEBIT, Decimal("40")),
    Entry("cash", Side.CREDIT, Decimal("40")),
]
first = entries[0]
# %%
balances = defaultdict(Decimal)
for entry in entries:
    balances[entry.account] += entry.side.value * entry.amount
by_account = {e.account: e for e in entries}
# %%
shared_tags.append("reviewed")
assert entries[1].tags is shared_tags and entries[0] is first
# %%
class Side2(enum.Flag):
    A = 1
    B = 2

both = Side2.A | Side2.B
corrected = replace(first, amount=first.amount / 3)
# %%
same = [entries[0] == first, isinstance(corrected, Entry), first.side is Side.DEBIT]
assert all(same)
total = sum(balances.values())
