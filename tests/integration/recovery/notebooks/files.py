# %% reading a log while a summary is written
import csv
import io
import os

os.makedirs("data", exist_ok=True)
with open("data/access.csv", "w", newline="") as out:
    writer = csv.writer(out)
    for n in range(40):
        writer.writerow([n, f"/page/{n % 7}", 200 if n % 5 else 500])
# %%
source = open(os.path.abspath("data/access.csv"))
header = [source.readline().strip() for _ in range(3)]
# %%
summary = open(os.path.abspath("summary.txt"), "w")
_ = summary.write("first\n")
summary.flush()
# %%
fourth = source.readline().strip()
both = {"in": source, "out": summary}
# %%
os.chdir("data")
os.environ["REPORT"] = "yes"
# %%
buffer = io.StringIO("alpha\nbeta\ngamma\n")
line = buffer.readline()
# %%
fifth = source.readline().strip()
rest = buffer.read()
assert both["in"] is source
# %%
with open("../summary.txt") as written:
    seen = written.read()
names = sorted(os.listdir("."))
