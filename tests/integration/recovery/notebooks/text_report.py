# %% words, dates, paths
import collections
import datetime as dt
import fractions
import pathlib
import re
import string
import types
import uuid

text = "the cat and the dog and the bird, each with 3 fleas"
word = re.compile(r"[a-z]+")
# %%
counts = collections.Counter(word.findall(text))
common = counts.most_common(2)
match = re.search(r"(\d) (\w+)", text)
# %%
Row = collections.namedtuple("Row", "day share key")
start = dt.datetime(2024, 2, 28, tzinfo=dt.timezone.utc)
rows = [Row(start + dt.timedelta(days=n), fractions.Fraction(n, 3), uuid.uuid5(uuid.NAMESPACE_DNS, str(n))) for n in range(4)]
# %%
recent = collections.deque(rows, maxlen=2)
chain = collections.ChainMap({"a": 1}, counts)
view = types.MappingProxyType(counts)
# %%
template = string.Template("$day: $share")
lines = [template.substitute(r._asdict()) for r in recent]
target = pathlib.Path("report.txt")
_ = target.write_text("\n".join(lines))
# %%
counts["the"] += 1
assert view["the"] == chain["the"] == 4 and recent[-1] is rows[-1]
loop = [rows]
loop.append(loop)
